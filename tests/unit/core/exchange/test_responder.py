from __future__ import annotations

import pytest

from adpsgd_node.core.exchange.frame import AbortReason, Accept, Chunk, Close
from adpsgd_node.core.exchange.initiator import ChunkApplied, ChunkRefused, StreamBroke, StreamEnded
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.exchange.responder import (
    Acknowledge,
    Finish,
    Merge,
    Reply,
    Responder,
    ResponderEnded,
    ResponderState,
    SendAbort,
)


def _merged(machine: Responder, index: int, applied_through: int) -> None:
    machine.handle(Chunk(index, applied_through, b""))
    machine.handle(ChunkApplied(index))


def test_chunk_acknowledges_then_merges_then_replies() -> None:
    machine = Responder(chunk_count=3, max_window=2)
    assert machine.handle(Chunk(0, 0, b"")) == (Acknowledge(0), Merge(0))
    assert machine.handle(ChunkApplied(0)) == (Reply(0),)
    assert machine.handle(Chunk(1, 1, b"")) == (Acknowledge(1), Merge(1))


@pytest.mark.parametrize(("applied", "outcome"), [(2, Outcome.COMPLETE), (1, Outcome.PARTIAL)])
def test_close_finishes_at_what_the_initiator_applied(applied: int, outcome: Outcome) -> None:
    machine = Responder(chunk_count=2, max_window=4)
    _merged(machine, 0, 0)
    _merged(machine, 1, 0)
    assert machine.handle(Close(applied)) == (Finish(applied), ResponderEnded(outcome))


def test_refused_chunk_aborts_and_ignores_what_was_sent_before_the_abort_arrived() -> None:
    machine = Responder(chunk_count=4, max_window=4)
    machine.handle(Chunk(0, 0, b""))
    assert machine.handle(ChunkRefused(0), AbortReason.NON_FINITE_OWN) == (SendAbort(AbortReason.NON_FINITE_OWN, 0),)
    assert machine.handle(Chunk(1, 0, b"")) == ()
    assert machine.handle(Close(0)) == (Finish(0), ResponderEnded(Outcome.PARTIAL))


@pytest.mark.parametrize(
    "chunk",
    [Chunk(1, 0, b""), Chunk(5, 0, b""), Chunk(0, 1, b"")],
    ids=["skips one", "beyond the plane", "acknowledges what was never sent"],
)
def test_chunk_that_breaks_the_order_breaks_the_exchange(chunk: Chunk) -> None:
    machine = Responder(chunk_count=4, max_window=4)
    (ended,) = machine.handle(chunk)
    assert isinstance(ended, ResponderEnded)
    assert ended.outcome is Outcome.BROKEN
    assert machine.state is ResponderState.BROKEN


def test_initiator_that_acknowledges_nothing_is_cut_off_at_the_window() -> None:
    machine = Responder(chunk_count=10, max_window=2)
    _merged(machine, 0, 0)
    _merged(machine, 1, 0)
    (ended,) = machine.handle(Chunk(2, 0, b""))
    assert isinstance(ended, ResponderEnded)
    assert "exceed 2" in ended.cause


def test_acknowledgement_that_goes_back_breaks_the_exchange() -> None:
    machine = Responder(chunk_count=10, max_window=4)
    _merged(machine, 0, 0)
    _merged(machine, 1, 1)
    (ended,) = machine.handle(Chunk(2, 0, b""))
    assert isinstance(ended, ResponderEnded)


def test_close_beyond_what_was_merged_breaks_the_exchange() -> None:
    (ended,) = Responder(chunk_count=4, max_window=4).handle(Close(1))
    assert isinstance(ended, ResponderEnded)
    assert ended.outcome is Outcome.BROKEN


@pytest.mark.parametrize("event", [StreamBroke("reset"), StreamEnded(), Accept(0)])
def test_anything_but_close_leaves_the_journal_to_be_settled(event: StreamBroke | StreamEnded | Accept) -> None:
    machine = Responder(chunk_count=4, max_window=4)
    _merged(machine, 0, 0)
    effects = machine.handle(event)
    assert not any(isinstance(effect, Finish) for effect in effects)
    assert machine.state is ResponderState.BROKEN

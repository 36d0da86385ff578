from __future__ import annotations

import pytest

from adpsgd_node.core.exchange.frame import Abort, AbortReason, Accept, Chunk, Decline, DeclineReason
from adpsgd_node.core.exchange.initiator import (
    Apply,
    ChunkApplied,
    ChunkRefused,
    Initiator,
    InitiatorEnded,
    InitiatorState,
    SendChunk,
    SendClose,
    StreamBroke,
    StreamEnded,
)
from adpsgd_node.core.exchange.outcome import Outcome


def _chunk(index: int) -> Chunk:
    return Chunk(index, 0, b"")


def test_accept_opens_the_window_and_each_applied_chunk_moves_it() -> None:
    machine = Initiator(chunk_count=4, window=2)
    assert machine.handle(Accept(0)) == (SendChunk(0, 0), SendChunk(1, 0))
    assert machine.handle(_chunk(0)) == (Apply(0),)
    assert machine.handle(ChunkApplied(0)) == (SendChunk(2, 1),)


def test_last_applied_chunk_closes_and_a_clean_end_is_complete() -> None:
    machine = Initiator(chunk_count=1, window=6)
    machine.handle(Accept(0))
    machine.handle(_chunk(0))
    assert machine.handle(ChunkApplied(0)) == (SendClose(1),)
    assert machine.handle(StreamEnded()) == (InitiatorEnded(Outcome.COMPLETE, 1),)
    assert machine.state is InitiatorState.DONE


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (DeclineReason.BUSY, Outcome.DECLINED),
        (DeclineReason.SETTLED, Outcome.DECLINED),
        (DeclineReason.SCHEMA, Outcome.REFUSED),
        (DeclineReason.POISONED, Outcome.REFUSED),
    ],
)
def test_decline_ends_it_and_says_whether_to_try_again_soon(reason: DeclineReason, outcome: Outcome) -> None:
    decline = Decline(reason, "why")
    assert Initiator(3, 2).handle(decline) == (InitiatorEnded(outcome, 0, decline),)


def test_refused_chunk_closes_with_what_was_applied_and_later_answers_are_ignored() -> None:
    machine = Initiator(chunk_count=4, window=3)
    machine.handle(Accept(0))
    machine.handle(_chunk(0))
    machine.handle(ChunkApplied(0))
    machine.handle(_chunk(1))
    assert machine.handle(ChunkRefused(1)) == (SendClose(1),)
    assert machine.handle(_chunk(2)) == ()
    assert machine.handle(_chunk(1)) == ()
    assert machine.handle(StreamEnded()) == (InitiatorEnded(Outcome.PARTIAL, 1),)


def test_abort_closes_with_what_was_applied() -> None:
    machine = Initiator(chunk_count=4, window=3)
    machine.handle(Accept(0))
    assert machine.handle(Abort(AbortReason.NON_FINITE_THEIRS, 0)) == (SendClose(0),)


@pytest.mark.parametrize("index", [1, 2, 7])
def test_chunk_out_of_order_breaks_the_exchange(index: int) -> None:
    machine = Initiator(chunk_count=4, window=2)
    machine.handle(Accept(0))
    (ended,) = machine.handle(_chunk(index))
    assert isinstance(ended, InitiatorEnded)
    assert (ended.outcome, ended.applied) == (Outcome.BROKEN, 0)


def test_break_while_streaming_reports_exactly_what_was_applied() -> None:
    machine = Initiator(chunk_count=4, window=2)
    machine.handle(Accept(0))
    machine.handle(_chunk(0))
    machine.handle(ChunkApplied(0))
    assert machine.handle(StreamBroke("reset")) == (InitiatorEnded(Outcome.BROKEN, 1, cause="reset"),)
    assert machine.handle(_chunk(1)) == ()


def test_break_after_close_was_sent_still_needs_settling() -> None:
    machine = Initiator(chunk_count=1, window=1)
    machine.handle(Accept(0))
    machine.handle(_chunk(0))
    machine.handle(ChunkApplied(0))
    (ended,) = machine.handle(StreamBroke("reset"))
    assert ended == InitiatorEnded(Outcome.BROKEN, 1, cause="reset")


def test_break_before_accept_is_unreachable_because_no_chunk_was_sent() -> None:
    assert Initiator(2, 1).handle(StreamBroke("no route")) == (
        InitiatorEnded(Outcome.UNREACHABLE, 0, cause="no route"),
    )


def test_responder_that_ends_early_breaks_the_exchange() -> None:
    machine = Initiator(chunk_count=2, window=1)
    machine.handle(Accept(0))
    (ended,) = machine.handle(StreamEnded())
    assert isinstance(ended, InitiatorEnded)
    assert ended.outcome is Outcome.BROKEN

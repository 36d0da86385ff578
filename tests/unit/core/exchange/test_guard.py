from __future__ import annotations

import math

import pytest

from adpsgd_node.core.exchange.guard import (
    JUMP,
    MAX_GUARD_BYTES,
    MAX_GUARDED_PEERS,
    STEADY_LOOKS,
    ChunkShape,
    Guard,
    NormJump,
    Norms,
)
from adpsgd_node.core.tensor import Segment
from adpsgd_node.ids import NodeId

ADA = NodeId("ada", 1)
BOB = NodeId("bob", 1)
WEIGHTS = ChunkShape(10_000, Segment.PARAMETERS)


def _norms(mine: float, theirs: float) -> Norms:
    return Norms(mine, theirs, abs(mine - theirs))


def _watching(*own: float) -> Guard:
    """Return a guard over chunks that have long had these norms."""
    guard = Guard([WEIGHTS] * len(own))
    for _ in range(STEADY_LOOKS):
        for index, norm in enumerate(own):
            assert guard.judge(BOB, index, _norms(norm, norm)) is None
    return guard


def test_chunk_beyond_both_references_is_refused_with_its_ratio() -> None:
    guard = _watching(2.0)
    assert guard.judge(ADA, 0, _norms(2.0, 2.0 * JUMP)) is None
    assert guard.judge(BOB, 0, _norms(2.0, 200.0)) == NormJump(100.0)


def test_chunk_that_is_usual_for_its_peer_is_accepted_although_ours_has_shrunk() -> None:
    guard = _watching(2.0)
    assert guard.judge(ADA, 0, _norms(2.0, 19.0)) is None
    assert guard.judge(ADA, 0, _norms(0.01, 19.0)) is None
    assert guard.judge(BOB, 0, _norms(0.001, 500.0)) == NormJump(250.0), "its own history is what counts"


def test_refused_chunk_does_not_become_the_measure() -> None:
    guard = _watching(2.0)
    for _ in range(3):
        assert guard.judge(ADA, 0, _norms(2.0, 200.0)) == NormJump(100.0)


def test_smaller_chunks_are_never_a_jump() -> None:
    guard = _watching(2.0)
    assert guard.judge(ADA, 0, _norms(2.0, 0.0)) is None


def test_zero_chunk_may_grow_to_what_the_rest_of_the_model_has() -> None:
    guard = _watching(3.0, 0.0)
    average = math.sqrt(3.0**2 / 2)
    assert guard.judge(ADA, 1, _norms(0.0, 0.99 * average)) is None
    assert isinstance(guard.judge(BOB, 1, _norms(0.0, 1.01 * average)), NormJump)


def test_buffers_are_not_measured_by_parameters() -> None:
    """Running variances may be thousands of times larger than weights."""
    guard = Guard([WEIGHTS, ChunkShape(100, Segment.BUFFERS)])
    for _ in range(STEADY_LOOKS):
        guard.judge(BOB, 0, _norms(3.0, 3.0))
        guard.judge(BOB, 1, _norms(50_000.0, 50_000.0))
    assert guard.judge(ADA, 0, _norms(3.0, 300.0)) == NormJump(100.0)


def test_few_values_may_all_be_larger_than_the_model_is_on_average() -> None:
    guard = Guard([WEIGHTS, ChunkShape(1, Segment.PARAMETERS)])
    for _ in range(STEADY_LOOKS):
        guard.judge(BOB, 0, _norms(5.0, 5.0))
        guard.judge(BOB, 1, _norms(1e-4, 1e-4))
    assert guard.judge(ADA, 1, _norms(1e-4, 0.3)) is None, "one bias, of a size that others have too"


def test_large_chunk_is_put_off_until_the_place_is_watched_and_held_against_its_peer_then() -> None:
    """A node that has just joined meets an offender first."""
    guard = Guard([WEIGHTS])
    verdicts = [guard.judge(ADA, 0, _norms(2.0, 200.0)) for _ in range(STEADY_LOOKS + 1)]
    assert verdicts == [*[NormJump(100.0, watched=False)] * (STEADY_LOOKS - 1), *[NormJump(100.0)] * 2]


def test_node_that_is_behind_at_the_start_catches_up_by_its_own_steps() -> None:
    """A model that begins near zero, and a peer that is some steps ahead."""
    guard, verdicts = Guard([WEIGHTS]), []
    for mine, theirs in ((0.05, 0.9), (0.08, 0.92), (0.11, 0.94), (0.4, 0.95), (0.6, 0.96), (0.7, 0.97)):
        verdicts.append(guard.judge(ADA, 0, _norms(mine, theirs)))
    assert [verdict is None for verdict in verdicts] == [False, False, True, True, True, True]
    assert not any(verdict.watched for verdict in verdicts if verdict is not None)


def test_node_that_is_behind_at_the_start_believes_a_second_peer_that_shows_the_like() -> None:
    guard = Guard([WEIGHTS])
    assert guard.judge(ADA, 0, _norms(0.05, 0.9)) == NormJump(pytest.approx(18.0), watched=False)
    assert guard.judge(ADA, 0, _norms(0.05, 0.9)) is not None, "the same peer bears nothing out"
    assert guard.judge(BOB, 0, _norms(0.05, 1.1)) is None


def test_two_peers_with_unlike_norms_bear_nothing_out() -> None:
    guard = Guard([WEIGHTS])
    for peer, norm in ((ADA, 200.0), (BOB, 2000.0), (ADA, 200.0)):
        assert isinstance(guard.judge(peer, 0, _norms(2.0, norm)), NormJump)


def test_zero_model_takes_the_first_values_it_is_shown() -> None:
    assert Guard([WEIGHTS]).judge(ADA, 0, _norms(0.0, 5.0)) is None


@pytest.mark.parametrize("factor", [1.5, 3.0])
def test_nothing_is_held_against_a_peer_while_the_own_norm_still_grows(factor: float) -> None:
    guard, mine = Guard([WEIGHTS]), 1e-3
    for _ in range(STEADY_LOOKS + 3):
        verdict = guard.judge(ADA, 0, _norms(mine, 1000 * mine))
        assert verdict == NormJump(pytest.approx(1000), watched=False)
        mine *= factor


def test_watch_once_begun_never_ends() -> None:
    guard = _watching(1.0)
    assert guard.judge(ADA, 0, _norms(9.0, 9.0)) is None
    assert isinstance(guard.judge(ADA, 0, _norms(1.0, 500.0)), NormJump)


def test_model_that_is_all_zero_has_no_measure_and_refuses_nothing() -> None:
    guard = _watching(0.0)
    assert guard.judge(ADA, 0, _norms(0.0, 1e9)) is None


@pytest.mark.parametrize("odd", [math.inf, math.nan])
def test_norms_that_overflow_leave_no_trace(odd: float) -> None:
    guard = _watching(2.0)
    guard.judge(ADA, 0, Norms(odd, 1.0, odd))
    assert guard.judge(BOB, 0, _norms(2.0, 200.0)) == NormJump(100.0)


def test_history_of_a_boot_that_is_over_is_dropped() -> None:
    guard = _watching(2.0)
    guard.judge(ADA, 0, _norms(2.0, 19.0))
    guard.forget(ADA)
    assert guard.judge(ADA, 0, _norms(0.1, 19.0)) == NormJump(pytest.approx(190.0))


def test_memory_is_bounded_in_peers_and_in_bytes() -> None:
    guard = Guard([WEIGHTS])
    for number in range(MAX_GUARDED_PEERS + 5):
        guard.judge(NodeId(f"n{number}", 1), 0, _norms(1.0, 1.0))
    assert guard.peers() == MAX_GUARDED_PEERS
    huge = Guard([WEIGHTS] * (1 << 20))
    for number in range(8):
        huge.judge(NodeId(f"n{number}", 1), 0, _norms(1.0, 1.0))
    assert huge.peers() * 4 * (1 << 20) <= MAX_GUARD_BYTES

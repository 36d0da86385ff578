from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpsgd_node.core.exchange.clip import LEAST_SCALE, scale_for, stricter, within
from adpsgd_node.core.exchange.guard import ChunkShape, Guard, NormJump, Norms
from adpsgd_node.core.exchange.referee import Referee
from adpsgd_node.core.tensor import Segment
from adpsgd_node.errors import WireError
from adpsgd_node.ids import NodeId

ADA = NodeId("ada", 1)
sizes = st.floats(0, 2.0**60, width=32)


def test_scale_follows_the_formula() -> None:
    assert scale_for(0.5, Norms(4.0, 8.0, 10.0)) == pytest.approx(0.5 * 4 / 10)
    assert scale_for(0.5, Norms(8.0, 4.0, 10.0)) == pytest.approx(0.5 * 4 / 10), "the smaller side's norm counts"


@pytest.mark.parametrize("norms", [Norms(4.0, 8.0, 2.0), Norms(4.0, 8.0, 0.0), Norms(0.0, 0.0, 0.0)])
def test_what_is_close_enough_moves_as_a_whole(norms: Norms) -> None:
    assert scale_for(0.5, norms) == 1.0


def test_without_a_bound_everything_moves_as_a_whole() -> None:
    assert scale_for(0.0, Norms(0.0, 8.0, 8.0)) == 1.0
    assert within(1.0, 0.0, Norms(0.0, 8.0, 8.0))


def test_zero_side_moves_by_next_to_nothing_and_that_is_within_the_bound() -> None:
    norms = Norms(0.0, 8.0, 8.0)
    assert scale_for(0.5, norms) == LEAST_SCALE
    assert within(LEAST_SCALE, 0.5, norms)


@given(sizes, sizes, sizes, st.floats(0.01, 1.0))
def test_scale_is_a_float32_above_zero_that_keeps_its_bound(
    mine: float, theirs: float, distance: float, bound: float
) -> None:
    norms = Norms(mine, theirs, distance)
    scale = scale_for(bound, norms)
    assert 0.0 < scale <= 1.0
    assert struct.unpack("<f", struct.pack("<f", scale)) == (scale,)
    assert within(scale, bound, norms)


def test_scale_that_moves_more_than_the_bound_is_noticed() -> None:
    norms = Norms(4.0, 8.0, 10.0)
    assert within(0.2, 0.5, norms)
    assert not within(0.21, 0.5, norms)
    assert not within(1.0, 0.5, norms)


def test_stricter_bound_holds_and_zero_is_none() -> None:
    assert stricter(0.5, 0.25) == 0.25
    assert stricter(0.0, 0.25) == 0.25
    assert stricter(0.5, 0.0) == 0.5
    assert stricter(0.0, 0.0) == 0.0


def _referee(bound: float) -> Referee:
    return Referee(Guard([ChunkShape(100, Segment.PARAMETERS)]), ADA, bound)


def test_responder_keeps_the_bound_of_the_initiator_too() -> None:
    referee = _referee(0.5)
    referee.tighten(0.1)
    assert referee.propose(0, Norms(4.0, 8.0, 10.0)) == pytest.approx(0.04)


def test_initiator_uses_the_scale_it_is_told_and_refuses_one_beyond_its_bound() -> None:
    assert _referee(0.5).check(0, Norms(4.0, 8.0, 10.0), 0.125) == 0.125
    with pytest.raises(WireError, match="scale 0.25"):
        _referee(0.5).check(0, Norms(4.0, 8.0, 10.0), 0.25)


def test_jump_is_refused_before_anything_is_scaled() -> None:
    referee = _referee(0.5)
    for _ in range(8):
        referee.propose(0, Norms(1.0, 1.0, 0.0))
    assert referee.propose(0, Norms(1.0, 100.0, 99.0)) == NormJump(100.0)
    assert referee.check(0, Norms(1.0, 100.0, 99.0), 1.0) == NormJump(100.0), "a jump, not a breach of the bound"

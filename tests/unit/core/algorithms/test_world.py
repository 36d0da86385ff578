"""Who takes part in an algorithm of a fixed number of nodes."""

from __future__ import annotations

import pytest

from adpsgd_node.core.algorithms.world import MAX_WORLD, Assembly, World, absent, ready
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.ids import Address, NodeId

A, B, C, D = (NodeId(name, 1) for name in "abcd")


def member(node: NodeId, phase: Phase = Phase.TRAINING, state: MemberState = MemberState.ALIVE) -> Member:
    return Member(node, Address("h:1"), 0, state, phase)


def test_ranks_go_by_name_and_the_first_decides_once_the_others_have_called() -> None:
    assembly = Assembly(A, 3)
    assert assembly.decide([C, A, B]) is None
    assembly.call(C)
    assert assembly.decide([C, A, B]) is None
    assembly.call(B)
    world = assembly.decide([C, A, B])
    assert world == World((A, B, C))
    assert [world.rank_of(node) for node in (A, B, C, D)] == [0, 1, 2, None]


def test_nobody_else_decides() -> None:
    assembly = Assembly(B, 2)
    assembly.call(A)
    assembly.call(B)  # somebody else in its name
    assert assembly.decide([A, B]) is None
    assert assembly.whom_to_ask([A, B, C]) == A


def test_the_first_asks_the_next_as_it_may_be_too_late_itself() -> None:
    assert Assembly(A, 3).whom_to_ask([A, B, C]) == B
    assert Assembly(A, 1).whom_to_ask([A]) is None


def test_one_that_called_and_is_not_ready_is_waited_for() -> None:
    assembly = Assembly(A, 2)
    assembly.call(B)
    assert assembly.decide([A]) is None
    assert assembly.decide([A, NodeId("b", 2)]) is None, "a later life has not called"


def test_a_world_that_stands_does_not_change() -> None:
    assembly = Assembly(A, 1)
    assert assembly.decide([A]) == World((A,))
    assembly.call(B)
    assert assembly.decide([A, B]) == World((A,))


def test_a_node_enters_no_world_without_a_place_or_of_another_size() -> None:
    assembly = Assembly(C, 2)
    assert not assembly.enter(World((A, B)))
    assert not assembly.enter(World((A, B, C)))
    assert assembly.world is None
    assert assembly.enter(World((A, C)))
    assert assembly.decide([]) == World((A, C))


def test_a_flood_of_callers_takes_no_memory() -> None:
    assembly = Assembly(A, 2)
    for number in range(2 * MAX_WORLD):
        assembly.call(NodeId(f"n{number}", 1))
    assert len(assembly._called) == MAX_WORLD


def test_ready_are_the_live_ones_that_hold_the_model_and_have_not_ended() -> None:
    members = [
        member(A),
        member(B, state=MemberState.SUSPECT),
        member(C, Phase.INITIALIZING),
        member(D, state=MemberState.DEAD),
        member(NodeId("e", 1), Phase.SETTLING),
    ]
    assert ready(members) == [A, B]


@pytest.mark.parametrize(
    ("members", "lost", "stopped"),
    [
        ([member(A), member(B)], [], []),
        ([member(A), member(B, state=MemberState.SUSPECT)], [], []),
        ([member(A), member(B, state=MemberState.DEAD)], [B], []),
        ([member(A), member(B, state=MemberState.LEFT)], [B], []),
        ([member(A)], [B], []),
        ([member(A), member(NodeId("b", 2))], [B], []),
        ([member(A), member(B, Phase.SETTLING), member(C, Phase.FINISHED)], [], [B]),
        ([member(A), member(B, Phase.POISONED)], [], []),
    ],
)
def test_who_is_missing(members: list[Member], lost: list[NodeId], stopped: list[NodeId]) -> None:
    assert absent(World((A, B)), members) == (lost, stopped)

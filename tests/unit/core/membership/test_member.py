from __future__ import annotations

import itertools

from adpsgd_node.core.membership.member import Member, MemberState, Phase, supersedes
from adpsgd_node.ids import Address, NodeId


def member(state: MemberState = MemberState.ALIVE, incarnation: int = 0, boot: int = 1) -> Member:
    return Member(NodeId("b", boot), Address("b:1"), incarnation, state, Phase.IDLE)


def test_suspect_with_older_incarnation_is_ignored() -> None:
    assert not supersedes(member(MemberState.SUSPECT, 1), member(MemberState.ALIVE, 2))


def test_suspect_with_same_incarnation_overrides_alive() -> None:
    assert supersedes(member(MemberState.SUSPECT, 2), member(MemberState.ALIVE, 2))


def test_alive_with_same_incarnation_does_not_clear_a_suspicion() -> None:
    assert not supersedes(member(MemberState.ALIVE, 2), member(MemberState.SUSPECT, 2))


def test_dead_member_comes_back_only_with_a_higher_incarnation() -> None:
    dead = member(MemberState.DEAD, 4)
    assert not supersedes(member(MemberState.ALIVE, 4), dead)
    assert supersedes(member(MemberState.ALIVE, 5), dead)


def test_later_boot_overrides_whatever_the_earlier_one_was() -> None:
    for state in MemberState:
        assert supersedes(member(MemberState.ALIVE, 0, boot=2), member(state, 99, boot=1))
        assert not supersedes(member(state, 99, boot=1), member(MemberState.ALIVE, 0, boot=2))


def test_precedence_is_a_total_order_so_that_any_order_of_hearing_ends_alike() -> None:
    claims = [member(state, incarnation, boot) for state in MemberState for incarnation in (0, 1) for boot in (1, 2)]
    for one, other in itertools.combinations(claims, 2):
        assert supersedes(one, other) != supersedes(other, one)

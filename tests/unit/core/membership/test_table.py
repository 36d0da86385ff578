from __future__ import annotations

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.membership.table import Table
from adpsgd_node.ids import Address, NodeId


def member(name: str, state: MemberState = MemberState.ALIVE) -> Member:
    return Member(NodeId(name, 1), Address(f"{name}:1"), 0, state, Phase.IDLE)


def test_live_members_are_sorted_by_name_and_leave_out_the_dead() -> None:
    table = Table(MembershipConfig())
    for known in (member("c"), member("a", MemberState.SUSPECT), member("b", MemberState.DEAD)):
        table.put(known, 0.0)
    assert [known.name for known in table.live()] == ["a", "c"]
    assert [known.name for known in table.members()] == ["a", "b", "c"]


def test_grave_is_forgotten_after_its_time() -> None:
    table = Table(MembershipConfig(tombstone_s=10.0))
    table.put(member("a", MemberState.DEAD), 0.0)
    table.purge(10.0)
    assert table.get("a") is not None
    table.purge(10.1)
    assert table.get("a") is None


def test_oldest_grave_makes_room_when_there_are_too_many() -> None:
    table = Table(MembershipConfig(max_tombstones=2))
    for name in "abc":
        table.put(member(name, MemberState.DEAD), 0.0)
    assert [known.name for known in table.dead()] == ["b", "c"]


def test_members_who_left_are_remembered_but_not_tried_again() -> None:
    table = Table(MembershipConfig())
    table.put(member("a", MemberState.LEFT), 0.0)
    assert table.get("a") is not None
    assert table.dead() == ()


def test_member_that_returns_has_no_grave() -> None:
    table = Table(MembershipConfig())
    table.put(member("a", MemberState.DEAD), 0.0)
    table.put(member("a"), 1.0)
    assert table.dead() == ()
    assert [known.name for known in table.live()] == ["a"]

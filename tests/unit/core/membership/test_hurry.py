from __future__ import annotations

import random

from adpsgd_node.core.membership import Identity, Member, MemberState, Packet, Phase, Swim
from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import SendPacket
from adpsgd_node.core.membership.event import PacketReceived
from adpsgd_node.core.membership.hurry import BURSTS_PER_PROBE, TOLD_AT_ONCE
from adpsgd_node.ids import Address, NodeId, RunId

CONFIG = MembershipConfig()


def member(
    name: str, state: MemberState = MemberState.ALIVE, incarnation: int = 0, phase: Phase = Phase.IDLE
) -> Member:
    return Member(NodeId(name, 1), Address(f"{name}:1"), incarnation, state, phase)


def machine() -> Swim:
    """Return a node that knows b to g and j."""
    swim = Swim(Identity(id=NodeId("a", 1), address=Address("a:1"), run_id=RunId("run")), CONFIG, random.Random(1))
    swim.start(0.0)
    assert told(swim, 0.01, *map(member, "bcdefgj")) == [], "new members are no urgent news"
    return swim


def told(swim: Swim, now: float, *updates: Member) -> list[SendPacket]:
    packet = Packet(protocol=1, run_id=RunId("run"), source=member("g"), updates=updates)
    return [effect for effect in swim.handle(PacketReceived(packet), now) if isinstance(effect, SendPacket)]


def test_suspicion_refutation_death_and_leave_are_passed_on_at_once() -> None:
    swim = machine()
    changes = [
        member("b", MemberState.SUSPECT),
        member("b", MemberState.ALIVE, 1),
        member("b", MemberState.DEAD, 1),
        member("c", MemberState.LEFT),
    ]
    for turn, change in enumerate(changes, start=1):
        packets = told(swim, 2.0 * turn, change)
        assert len({packet.address for packet in packets}) == TOLD_AT_ONCE
        for packet in packets:
            assert packet.packet.updates[0] == change


def test_what_is_known_already_or_only_another_phase_is_not_urgent() -> None:
    swim = machine()
    told(swim, 2.0, member("b", MemberState.SUSPECT))
    assert told(swim, 4.0, member("b", MemberState.SUSPECT)) == []
    assert told(swim, 6.0, member("c", incarnation=1, phase=Phase.TRAINING)) == []


def test_many_changes_at_once_make_only_so_many_packets() -> None:
    swim = machine()
    packets = [told(swim, 2.0 + 0.01 * turn, member(name, MemberState.SUSPECT)) for turn, name in enumerate("bcde")]
    assert [len(each) for each in packets] == [TOLD_AT_ONCE, 0, 0, 0]
    later = told(swim, 2.0 + CONFIG.probe_interval_s / BURSTS_PER_PROBE, member("f", MemberState.SUSPECT))
    assert {update.name for update in later[0].packet.updates} >= set("bcdef")

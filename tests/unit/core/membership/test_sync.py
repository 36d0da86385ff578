from __future__ import annotations

import random
from dataclasses import replace

import pytest

from adpsgd_node.core.membership import Identity, JoinResponse, Member, MemberState, Packet, Phase, Swim
from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import AskToJoin
from adpsgd_node.core.membership.event import JoinAnswered, PacketReceived
from adpsgd_node.core.membership.suspicion import least_suspicion_s
from adpsgd_node.core.membership.sync import MAX_TRIES, sync_interval_s
from adpsgd_node.ids import Address, NodeId, RunId


def member(name: str) -> Member:
    return Member(NodeId(name, 1), Address(f"{name}:1"), 0, MemberState.ALIVE, Phase.IDLE)


def questions(*, answered: bool) -> list[float]:
    """Return when a node that knows nine others asks one of them, in the time of one interval."""
    # Probes are rare here, so that nobody is found silent.
    config = MembershipConfig(probe_interval_s=1000.0, sync_interval_s=30.0, join_answer_timeout_s=5.0)
    identity = Identity(id=NodeId("a", 1), address=Address("a:1"), run_id=RunId("run"))
    machine = Swim(identity, config, random.Random(1))
    machine.start(0.0)
    packet = Packet(protocol=1, run_id=RunId("run"), source=member("b"), updates=tuple(map(member, "cdefghij")))
    machine.handle(PacketReceived(packet), 0.1)
    asked: list[float] = []
    while (due := machine.deadline()) is not None and due < (asked[0] if asked else 30.0) + 22.0:
        for effect in machine.expire(due):
            if isinstance(effect, AskToJoin):
                asked.append(due)
                if answered:
                    name = effect.seed.split(":")[0]
                    machine.handle(JoinAnswered(effect.seed, JoinResponse(refusal=None, source=member(name))), due)
    return asked


def test_one_member_is_asked_in_an_interval_when_it_answers() -> None:
    assert len(questions(answered=True)) == 1


def test_others_are_asked_when_nobody_answers_but_only_so_many() -> None:
    first, *others = questions(answered=False)
    assert others == pytest.approx([first + 5.0 * turn for turn in range(1, MAX_TRIES)])


@pytest.mark.parametrize(("members", "times"), [(1, 1), (32, 1), (33, 2), (64, 2), (65, 3), (1000, 6), (4096, 8)])
def test_interval_grows_by_one_with_each_doubling_beyond_32_members(members: int, times: int) -> None:
    assert sync_interval_s(MembershipConfig(sync_interval_s=30.0), members) == times * 30.0


@pytest.mark.parametrize("suspected", [False, True])
def test_a_death_that_another_node_remembers_leaves_the_least_time_to_refute(suspected: bool) -> None:
    # Probes are rare here, so that only what is told counts; and no look at the clock is late.
    config = MembershipConfig(probe_interval_s=1000.0, suspicion_multiplier=0.001, pause_tolerance_s=100.0)
    machine = Swim(Identity(id=NodeId("a", 1), address=Address("a:1"), run_id=RunId("run")), config, random.Random(1))
    machine.start(0.0)
    suspect = replace(member("z"), state=MemberState.SUSPECT, suspected_by="c")
    updates = tuple(map(member, "cdefghi")) + ((suspect,) if suspected else (member("z"),))
    machine.handle(PacketReceived(Packet(protocol=1, run_id=RunId("run"), source=member("b"), updates=updates)), 0.1)
    remembered = replace(member("z"), state=MemberState.DEAD)
    machine.handle(
        JoinAnswered(Address("b:1"), JoinResponse(refusal=None, source=member("b"), members=(remembered,))), 1.0
    )
    least_s = least_suspicion_s(config, len(machine.live()))
    begun = 0.1 if suspected else 1.0

    def state(now: float) -> MemberState:
        machine.expire(now)
        return next(known.state for known in machine.members() if known.name == "z")

    assert state(begun + least_s - 0.1) is MemberState.SUSPECT
    assert state(begun + least_s + 0.1) is MemberState.DEAD

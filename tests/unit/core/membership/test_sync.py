from __future__ import annotations

import random

import pytest

from adpsgd_node.core.membership import Identity, JoinResponse, Member, MemberState, Packet, Phase, Swim
from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import AskToJoin
from adpsgd_node.core.membership.event import JoinAnswered, PacketReceived
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

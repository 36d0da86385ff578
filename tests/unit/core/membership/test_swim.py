from __future__ import annotations

import random

from adpsgd_node.core.membership import (
    Identity,
    JoinRequest,
    JoinResponse,
    Member,
    MembershipConfig,
    MemberState,
    Packet,
    Phase,
    Refusal,
    RefusalReason,
    Swim,
)
from adpsgd_node.core.membership.effect import (
    AskToJoin,
    Effect,
    Joined,
    JoinRefused,
    MemberChanged,
    NameConflict,
    NameInUse,
    Rejected,
    SendPacket,
)
from adpsgd_node.core.membership.event import Advanced, JoinAnswered, Leave, LoopLagged, PacketReceived
from adpsgd_node.core.membership.packet import Ack, Body, Ping, PingRequest
from adpsgd_node.core.progress import Progress, ProgressEntry
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId


def swim(config: MembershipConfig | None = None, seeds: tuple[str, ...] = (), progress: Progress | None = None) -> Swim:
    identity = Identity(id=NodeId("a", 1), address=Address("a:1"), run_id=RunId("run"))
    machine = Swim(
        identity,
        config or MembershipConfig(),
        random.Random(1),
        seeds=[Address(seed) for seed in seeds],
        progress=progress,
    )
    machine.start(0.0)
    return machine


def member(name: str, state: MemberState = MemberState.ALIVE, incarnation: int = 0, boot: int = 1) -> Member:
    return Member(NodeId(name, boot), Address(f"{name}:1"), incarnation, state, Phase.IDLE)


def packet(source: Member, *updates: Member, body: Body | None = None) -> PacketReceived:
    return PacketReceived(
        Packet(protocol=PROTOCOL_VERSION, run_id=RunId("run"), source=source, updates=updates, body=body)
    )


def request(source: Member) -> JoinRequest:
    return JoinRequest(protocol=PROTOCOL_VERSION, run_id=RunId("run"), source=source)


def sent(effects: tuple[Effect, ...]) -> list[SendPacket]:
    return [effect for effect in effects if isinstance(effect, SendPacket)]


def test_full_run_refuses_a_join_and_names_the_limit() -> None:
    machine = swim(MembershipConfig(max_members=2))
    assert machine.answer_join(request(member("b")), 0.1)[0].refusal is None
    refusal = machine.answer_join(request(member("c")), 0.2)[0].refusal
    assert refusal is not None
    assert refusal.reason is RefusalReason.FULL
    assert "max_members" in refusal.detail
    assert machine.answer_join(request(member("b", boot=2)), 0.3)[0].refusal is None, "a restart needs no new place"


def test_full_run_does_not_grow_by_gossip_either() -> None:
    machine = swim(MembershipConfig(max_members=2))
    machine.handle(packet(member("b"), member("c"), member("d")), 0.1)
    assert [known.name for known in machine.live()] == ["a", "b"]


def test_packet_carries_no_more_than_its_limits() -> None:
    machine = swim(MembershipConfig(updates_per_packet=3, progress_per_packet=4))
    machine.progress.merge(ProgressEntry(NodeId(f"n{index}", 1), 1, 1) for index in range(50))
    machine.handle(Advanced(5, 5), 0.1)
    machine.handle(packet(member("b"), *(member(f"n{index}") for index in range(20))), 0.1)
    (reply,) = sent(machine.handle(packet(member("b"), body=Ping(1, NodeId("a", 1))), 0.2))
    assert len(reply.packet.updates) == 3
    assert reply.packet.progress[0] == ProgressEntry(NodeId("a", 1), 5, 5)
    assert 1 < len(reply.packet.progress) <= 5


def test_relayed_pings_are_bounded_and_their_places_are_freed() -> None:
    machine = swim(MembershipConfig(max_relayed_pings=2))
    asks = [packet(member("b"), body=PingRequest(n, NodeId("t", 1), Address("t:1"))) for n in range(3)]
    assert [len(sent(machine.handle(ask, 0.01))) for ask in asks] == [1, 1, 0]
    while (due := machine.deadline()) is not None and due <= 1.1:
        machine.expire(due)
    assert len(sent(machine.handle(asks[2], 1.2))) == 1


def test_own_progress_is_counted_even_when_the_counter_is_full_of_others() -> None:
    progress = Progress(limit=2)
    machine = swim(progress=progress)
    progress.merge([ProgressEntry(NodeId("b", 1), 1, 1), ProgressEntry(NodeId("c", 1), 1, 1)])
    machine.handle(Advanced(7, 70), 0.1)
    assert progress.of(NodeId("a", 1)) == ProgressEntry(NodeId("a", 1), 7, 70)


def test_death_from_another_nodes_memory_only_casts_suspicion_on_who_lives_here() -> None:
    machine = swim(seeds=("s:1",))
    machine.handle(packet(member("b")), 0.1)
    response = JoinResponse(refusal=None, source=member("s"), members=(member("b", MemberState.DEAD),))
    effects = machine.handle(JoinAnswered(Address("s:1"), response), 0.2)
    changes = [effect for effect in effects if isinstance(effect, MemberChanged) and effect.member.name == "b"]
    assert [change.member.state for change in changes] == [MemberState.SUSPECT]


def test_unknown_dead_member_is_remembered_but_announced_to_nobody() -> None:
    machine = swim()
    effects = machine.handle(packet(member("b"), member("x", MemberState.DEAD, 3)), 0.1)
    assert [effect.member.name for effect in effects if isinstance(effect, MemberChanged)] == ["b"]
    machine.handle(packet(member("b"), member("x", MemberState.ALIVE, 3)), 0.2)
    assert [known.name for known in machine.live()] == ["a", "b"]


def test_seed_that_now_belongs_to_another_run_does_not_end_a_joined_node() -> None:
    machine = swim(seeds=("s:1",))
    machine.handle(JoinAnswered(Address("s:1"), JoinResponse(refusal=None, source=member("s"))), 0.1)
    refusal = Refusal(RefusalReason.RUN, "another run")
    answer = JoinAnswered(Address("s:1"), JoinResponse(refusal=refusal, source=member("z")))
    effects = machine.handle(answer, 0.2)
    assert not [effect for effect in effects if isinstance(effect, JoinRefused)]
    assert [effect.reason for effect in effects if isinstance(effect, Rejected)] == [RefusalReason.RUN]
    fresh = swim(seeds=("s:1",))
    assert isinstance(fresh.handle(answer, 0.2)[0], JoinRefused)


def test_name_found_in_use_after_joining_is_a_conflict() -> None:
    holder = Member(NodeId("a", 9), Address("other:1"), 0, MemberState.ALIVE, Phase.IDLE)
    refusal = Refusal(RefusalReason.NAME_IN_USE, "held")
    answer = JoinAnswered(Address("s:1"), JoinResponse(refusal=refusal, source=member("s"), members=(holder,)))
    assert swim(seeds=("s:1",)).handle(answer, 0.1)[0] == NameInUse("held", Address("s:1"), holder)
    joined = swim()
    assert NameConflict(holder) in joined.handle(answer, 0.1)


def test_late_answer_of_a_seed_given_up_still_lets_the_node_in() -> None:
    machine = swim(seeds=("s:1", "t:1"))
    while (due := machine.deadline()) is not None and due <= 6.0:
        machine.expire(due)
    effects = machine.handle(JoinAnswered(Address("s:1"), JoinResponse(refusal=None, source=member("s"))), 6.0)
    assert Joined(Address("s:1")) in effects


def test_last_member_lost_sends_a_joined_node_back_to_its_seeds() -> None:
    machine = swim(seeds=("s:1",))
    machine.handle(JoinAnswered(Address("s:1"), JoinResponse(refusal=None, source=member("s"))), 0.1)
    effects = machine.handle(packet(member("s", MemberState.LEFT)), 0.2)
    assert AskToJoin(Address("s:1")) in effects


def test_node_that_has_left_wants_no_timer_and_leaves_only_once() -> None:
    machine = swim()
    machine.handle(packet(member("b")), 0.1)
    assert len(sent(machine.handle(Leave(), 0.2))) == 1
    assert machine.deadline() is None
    assert machine.handle(Leave(), 0.3) == ()
    assert machine.expire(99.0) == ()
    assert [known.name for known in machine.live()] == ["b"]


def first_ping(machine: Swim) -> SendPacket:
    while (due := machine.deadline()) is not None:
        pings = [each for each in sent(machine.expire(due)) if isinstance(each.packet.body, Ping)]
        if pings:
            return pings[0]
    raise AssertionError("the machine has no timer left")


def test_holder_of_a_name_someone_asks_for_is_probed_first() -> None:
    for index in range(20):  # whatever place it would have had in the round
        machine = swim()
        for other in range(20):
            machine.handle(packet(member(f"n{other:02d}")), 0.01)
        claimant = Member(NodeId(f"n{index:02d}", 2), Address("elsewhere:1"), 0, MemberState.ALIVE, Phase.JOINING)
        machine.answer_join(request(claimant), 0.02)
        assert first_ping(machine).address == f"n{index:02d}:1"


def test_member_held_dead_here_and_alive_elsewhere_is_asked_itself() -> None:
    machine = swim()
    machine.handle(packet(member("c"), member("b")), 0.01)
    machine.handle(packet(member("c"), member("b", MemberState.DEAD)), 0.02)
    machine.handle(packet(member("c"), member("b")), 0.03)
    ping = first_ping(machine)
    assert ping.address == "b:1"
    assert ping.packet.updates[0] == member("b", MemberState.DEAD), "so that it can refute"


def suspect(name: str, by: str) -> Member:
    return Member(NodeId(name, 1), Address(f"{name}:1"), 0, MemberState.SUSPECT, Phase.IDLE, suspected_by=by)


def expire_until(machine: Swim, end: float, silent: str = "") -> list[Effect]:
    """Carry out every timer up to `end` at its time; every ping is answered at once, but those for the `silent`."""
    effects: list[Effect] = []
    while (due := machine.deadline()) is not None and due <= end:
        done = machine.expire(due)
        effects += done
        for each in sent(done):
            if isinstance(each.packet.body, Ping) and each.packet.body.target.name not in silent:
                peer = member(each.packet.body.target.name)
                effects += machine.handle(packet(peer, body=Ack(each.packet.body.sequence)), due)
    return effects


def died(effects: list[Effect]) -> list[str]:
    changes = [effect.member for effect in effects if isinstance(effect, MemberChanged)]
    return [changed.name for changed in changes if changed.state is MemberState.DEAD]


def test_suspect_of_many_dies_soon_and_suspect_of_one_late() -> None:
    for accusers, lives_s, dead_s in (("bbbb", 23.9, 24.1), ("bcde", 3.9, 4.1)):
        machine = swim()
        machine.handle(packet(member("f"), *map(member, "bcdegs")), 0.01)
        for accuser in accusers:  # f passes on what others say; s answers pings, but it never refutes
            machine.handle(packet(member("f"), suspect("s", accuser)), 0.02)
        assert died(expire_until(machine, lives_s)) == []
        assert died(expire_until(machine, dead_s)) == ["s"]


def test_own_failed_probe_of_a_suspect_is_told_as_one_more_accusation() -> None:
    machine = swim()
    for name in "bcde":
        machine.handle(packet(member(name)), 0.01)
    machine.handle(packet(member("c"), suspect("b", "c")), 0.02)
    effects = expire_until(machine, 12.0, silent="b")
    told = [update for each in sent(tuple(effects)) for update in each.packet.updates if update.name == "b"]
    assert suspect("b", "a") in told


def test_node_that_hears_its_relays_does_not_doubt_itself_and_one_that_hears_nobody_does() -> None:
    for relays_speak in (True, False):
        machine = swim()
        for name in "bcde":
            machine.handle(packet(member(name)), 0.01)
        while machine.health == 0 and (due := machine.deadline()) is not None and due < 2.0:
            for each in sent(machine.expire(due)):
                body = each.packet.body
                if isinstance(body, PingRequest) and relays_speak:
                    machine.handle(packet(member(each.address.split(":")[0])), due + 0.01)
        assert (machine.health == 0) is relays_speak


def test_relay_reports_a_silent_target_to_the_asker_and_probes_it_next() -> None:
    for target in "defgh":  # whatever place it would have had in the round
        machine = swim()
        machine.handle(packet(member("c"), *map(member, "defghijklm")), 0.01)
        asked = PingRequest(7, NodeId(target, 1), Address(f"{target}:1"))
        machine.handle(packet(member("c"), body=asked), 0.02)
        assert [each for each in sent(tuple(expire_until(machine, 0.6))) if each.packet.body is None] != []
        second = first_ping(machine)
        assert second.address == f"{target}:1"


def test_suspect_gets_back_the_time_in_which_this_node_stood_still() -> None:
    machine = swim()
    machine.handle(packet(member("f"), *map(member, "bcdegs")), 0.01)
    machine.handle(packet(member("f"), suspect("s", "b")), 0.02)
    machine.expire(60.0)
    for accuser in "cde":
        machine.handle(packet(member("f"), suspect("s", accuser)), 60.0)
    assert died(expire_until(machine, 62.0)) == []
    assert died(expire_until(machine, 64.0)) == ["s"]


def test_member_that_comes_in_the_middle_of_a_round_is_probed_in_that_round() -> None:
    machine = swim()
    machine.handle(packet(member("c"), *(member(f"n{index:02d}") for index in range(29))), 0.01)
    expire_until(machine, 5.0)
    machine.handle(packet(member("c"), member("z")), 5.0)
    effects = expire_until(machine, 30.9)  # the 30 members of the first round, and z
    probed = [each.address for each in sent(tuple(effects)) if isinstance(each.packet.body, Ping)]
    assert probed.count("z:1") == 1


def test_lagging_loop_makes_the_node_slower_to_judge() -> None:
    machine = swim()
    machine.handle(LoopLagged(0.1), 0.1)
    assert machine.health == 0
    machine.handle(LoopLagged(0.6), 0.2)
    assert machine.health == 2


def test_refuting_raises_the_doubt_in_oneself() -> None:
    machine = swim()
    machine.handle(packet(member("b"), suspect("a", "b")), 0.1)
    assert machine.health == 1


def test_joiner_does_not_spread_the_table_it_was_given_as_its_own_news() -> None:
    machine = swim(seeds=("s:1",))
    known = tuple(member(f"n{index}") for index in range(20))
    machine.handle(JoinAnswered(Address("s:1"), JoinResponse(refusal=None, source=member("s"), members=known)), 0.1)
    assert len(machine.live()) == 22
    [answer] = sent(machine.handle(packet(member("s"), body=Ping(1, NodeId("a", 1))), 0.2))
    assert answer.packet.updates == ()
    # What a member that compares tables brings later is news to those around us.
    machine.answer_join(JoinRequest(protocol=1, run_id=RunId("run"), source=member("s"), members=(member("z"),)), 0.3)
    [answer] = sent(machine.handle(packet(member("s"), body=Ping(2, NodeId("a", 1))), 0.4))
    assert answer.packet.updates == (member("z"),)


def test_join_question_carries_all_that_is_known_once_the_node_has_joined() -> None:
    machine = swim(seeds=("s:1",))
    machine.handle(packet(member("b")), 0.1)
    assert machine.join_request().members == ()
    machine.handle(JoinAnswered(Address("s:1"), JoinResponse(refusal=None, source=member("s"))), 0.2)
    assert machine.join_request().members == (member("b"), member("s"))

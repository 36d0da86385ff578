"""Members that nobody can dial: who judges them, by what, and what waits for them."""

from __future__ import annotations

import random
from itertools import pairwise

from adpsgd_node.core.membership import (
    Identity,
    Member,
    MembershipConfig,
    MemberState,
    Packet,
    Phase,
    Swim,
)
from adpsgd_node.core.membership.effect import Effect, MemberChanged, SendPacket
from adpsgd_node.core.membership.event import Leave, PacketReceived
from adpsgd_node.core.membership.packet import Ack, Body, Ping, PingRequest
from adpsgd_node.core.membership.roster import SPONSORS
from adpsgd_node.core.membership.sponsor import silence_s, sponsors_of
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId

CONFIG = MembershipConfig()


def member(name: str, *, outbound_only: bool = False, incarnation: int = 0) -> Member:
    address = Address("127.0.0.1:7400" if outbound_only else f"{name}:1")
    return Member(NodeId(name, 1), address, incarnation, MemberState.ALIVE, Phase.IDLE, outbound_only)


HIDDEN = member("hidden", outbound_only=True)


def machine(name: str = "a", *, outbound_only: bool = False) -> Swim:
    own = member(name, outbound_only=outbound_only)
    identity = Identity(id=own.id, address=own.address, run_id=RunId("run"), outbound_only=outbound_only)
    swim = Swim(identity, CONFIG, random.Random(1))
    swim.start(0.0)
    return swim


def packet(source: Member, *updates: Member, body: Body | None = None) -> PacketReceived:
    return PacketReceived(
        Packet(protocol=PROTOCOL_VERSION, run_id=RunId("run"), source=source, updates=updates, body=body)
    )


def pass_time(swim: Swim, until: float, *, answer: bool = True) -> list[tuple[float, Effect]]:
    """Let time pass; whoever is pinged answers."""
    told: list[tuple[float, Effect]] = []
    while (due := swim.deadline()) is not None and due <= until:
        effects = swim.expire(due)
        told += [(due, effect) for effect in effects]
        for effect in effects:
            if answer and isinstance(effect, SendPacket) and isinstance(effect.packet.body, Ping):
                swim.handle(packet(member(effect.to.name), body=Ack(effect.packet.body.sequence)), due)
    return told


def state(swim: Swim, name: str) -> MemberState:
    return next(found.state for found in swim.members() if found.name == name)


def test_sponsors_are_the_same_whoever_works_them_out_and_few_change() -> None:
    names = [f"n{number}" for number in range(50)]
    before = {name: sponsors_of(name, names) for name in map(str, range(200))}
    assert all(len(set(sponsors)) == SPONSORS for sponsors in before.values())
    assert before == {name: sponsors_of(name, list(reversed(names))) for name in before}
    assert len({tuple(sponsors) for sponsors in before.values()}) > 100, "the load falls on a few"
    moved = sum(sponsors_of(name, names[1:]) != sponsors for name, sponsors in before.items())
    assert moved == sum("n0" in sponsors for sponsors in before.values())


def test_nobody_dials_an_outbound_only_member() -> None:
    swim = machine()
    for other in (HIDDEN, member("b"), member("c")):
        swim.handle(packet(other), 0.0)
    told = pass_time(swim, 60.0)
    told += [(60.0, effect) for effect in swim.handle(packet(member("b"), body=_ask_for_hidden()), 60.0)]
    told += [(60.0, effect) for effect in swim.handle(packet(HIDDEN, body=Ping(7, NodeId("a", 1))), 60.0)]
    told += [(60.0, effect) for effect in swim.handle(Leave(), 60.0)]
    assert not [effect for _, effect in told if isinstance(effect, SendPacket) and effect.to == HIDDEN.id]


def _ask_for_hidden() -> PingRequest:
    return PingRequest(5, HIDDEN.id, HIDDEN.address)


def test_answer_to_its_ping_is_handed_out_with_the_call_that_brought_it() -> None:
    swim = machine()
    assert swim.handle(packet(HIDDEN, body=Ping(7, NodeId("a", 1))), 0.0) == (MemberChanged(HIDDEN, None),)
    [answer] = swim.collect(HIDDEN.id)
    assert answer.body == Ack(7)
    assert swim.collect(HIDDEN.id) == ()


def test_one_that_leaves_is_told_to_those_that_call_it_before_it_may_end() -> None:
    swim = machine()
    for other in (HIDDEN, member("b")):
        swim.handle(packet(other), 0.0)
    swim.handle(packet(member("other", outbound_only=True)), 0.0)
    swim.handle(Leave(), 1.0)
    assert swim.untold == 2
    swim.handle(packet(HIDDEN, body=Ping(7, NodeId("a", 1))), 1.5)
    for letter in swim.collect(HIDDEN.id):
        assert letter.source.state is MemberState.LEFT
    assert swim.untold == 1
    swim.collect(NodeId("nobody", 1))
    assert swim.untold == 1


def test_one_that_many_others_sponsor_is_not_waited_for() -> None:
    swim = machine()
    names = [f"b{number}" for number in range(50)]
    for name in names:
        swim.handle(packet(member(name)), 0.0)
    hidden = next(name for name in map(str, range(100)) if "a" not in sponsors_of(name, [*names, "a"]))
    swim.handle(packet(member(hidden, outbound_only=True)), 0.0)
    swim.handle(Leave(), 1.0)
    assert swim.untold == 0


def test_one_that_is_held_suspect_is_told_so_with_the_answer_and_its_refutation_counts() -> None:
    swim = machine()
    swim.handle(packet(HIDDEN), 0.0)
    pass_time(swim, 2 * silence_s(CONFIG) + 2.0)
    assert state(swim, "hidden") is MemberState.SUSPECT
    swim.handle(packet(HIDDEN, body=Ping(7, NodeId("a", 1))), 30.0)
    [answer] = swim.collect(HIDDEN.id)
    assert [(claim.name, claim.state) for claim in answer.updates] == [("hidden", MemberState.SUSPECT)]
    swim.handle(packet(member("hidden", outbound_only=True, incarnation=1)), 30.1)
    assert state(swim, "hidden") is MemberState.ALIVE


def test_sponsor_suspects_one_that_fell_silent_and_not_before() -> None:
    swim = machine()
    for second in range(20):
        swim.handle(packet(HIDDEN), float(second))
        pass_time(swim, float(second))
    pass_time(swim, 19.0 + silence_s(CONFIG) - 0.1)
    assert state(swim, "hidden") is MemberState.ALIVE
    pass_time(swim, 19.0 + silence_s(CONFIG) + CONFIG.probe_interval_s)
    assert state(swim, "hidden") is MemberState.SUSPECT
    pass_time(swim, 19.0 + silence_s(CONFIG) + CONFIG.minimum_suspicion_s + 2 * CONFIG.probe_interval_s)
    assert state(swim, "hidden") is MemberState.DEAD


def test_whoever_is_no_sponsor_judges_nobody() -> None:
    others = [f"n{number}" for number in range(6)]
    stranger = next(name for name in others if name not in sponsors_of("hidden", others))
    swim = machine(stranger)
    for name in others:
        if name != stranger:
            swim.handle(packet(member(name)), 0.0)
    swim.handle(packet(HIDDEN), 0.0)
    pass_time(swim, 120.0)
    assert state(swim, "hidden") is MemberState.ALIVE


def test_sponsor_that_was_refuted_without_being_called_grows_patient() -> None:
    swim = machine()
    swim.handle(packet(member("b")), 0.0)
    swim.handle(packet(HIDDEN), 0.0)
    suspected = []
    for incarnation in range(1, 5):
        while state(swim, "hidden") is not MemberState.SUSPECT:
            due = swim.deadline()
            assert due is not None
            pass_time(swim, due)
        now = due
        suspected.append(now)
        swim.handle(packet(member("b"), member("hidden", outbound_only=True, incarnation=incarnation)), now)
    gaps = [after - before for before, after in pairwise(suspected)]
    assert gaps[1] > 1.5 * gaps[0]
    assert gaps[2] < 1.2 * gaps[1], "patience has an end"


def test_node_that_stood_still_accuses_nobody_of_having_been_silent() -> None:
    swim = machine()
    for second in range(10):
        swim.handle(packet(HIDDEN), float(second))
        pass_time(swim, float(second))
    swim.expire(70.0)
    assert state(swim, "hidden") is MemberState.ALIVE


def test_outbound_only_node_calls_its_sponsors_in_turn_and_the_others_now_and_then() -> None:
    swim = machine("hidden", outbound_only=True)
    names = [f"n{number}" for number in range(10)]
    for name in names:
        swim.handle(packet(member(name)), 0.0)
    told = pass_time(swim, 120.0)
    calls = [(time, effect.to.name) for time, effect in told if isinstance(effect, SendPacket)]
    for sponsor in sponsors_of("hidden", names):
        times = [time for time, name in calls if name == sponsor]
        assert max(after - before for before, after in pairwise(times)) <= 3 * 1.01
    assert {name for _, name in calls} == set(names)
    assert len(calls) <= 2 * 120


def test_outbound_only_node_never_calls_another_and_gives_it_up_when_nobody_else_is_left() -> None:
    swim = machine("hidden", outbound_only=True)
    twin = member("twin", outbound_only=True)
    swim.handle(packet(member("b"), twin), 0.0)
    told = pass_time(swim, 60.0)
    assert {effect.to.name for _, effect in told if isinstance(effect, SendPacket)} == {"b"}
    assert state(swim, "twin") is MemberState.ALIVE
    told = pass_time(swim, 400.0, answer=False)
    assert state(swim, "b") is MemberState.DEAD
    assert state(swim, "twin") is MemberState.DEAD
    assert "twin" not in {effect.to.name for _, effect in told if isinstance(effect, SendPacket)}


def test_outbound_only_node_hears_through_relays_by_calling_them_again() -> None:
    swim = machine("hidden", outbound_only=True)
    for name in ("b", "c"):
        swim.handle(packet(member(name)), 0.0)
    told: list[tuple[float, Effect]] = []
    while not any(isinstance(e, SendPacket) and isinstance(e.packet.body, PingRequest) for _, e in told):
        due = swim.deadline()
        assert due is not None
        told += pass_time(swim, due, answer=False)
    asked = [
        (time, effect.to.name)
        for time, effect in [*told, *pass_time(swim, due + CONFIG.indirect_timeout_s, answer=False)]
        if isinstance(effect, SendPacket) and isinstance(effect.packet.body, PingRequest)
    ]
    first = asked[0][1]
    assert [name for _, name in asked].count(first) >= 2

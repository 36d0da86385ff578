"""Who starts exchanges with whom: when the nodes are split into two sides, and in rounds when peers keep apart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from adpsgd_node.core.algorithms.ad_psgd import Activity
from adpsgd_node.core.algorithms.d_psgd import opens
from adpsgd_node.core.exchange.frame import CodecName, Decline, DeclineReason
from adpsgd_node.core.exchange.outcome import Outcome, Role
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.topology import topology_named
from adpsgd_node.daemon.exchange_io import ExchangeEngine
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.gossip import Gossip
from adpsgd_node.daemon.settings import ExchangeConfig, PairingName, TopologyName
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.ids import Address, NodeId

STEPS = 20
TOLERANCE = 1e-3


class EngineOfRecord:
    """Completes every exchange at once, but with those that refuse, and keeps whom it was with."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.refusing: set[str] = set()

    def freeze(self, frozen: bool) -> None:
        pass

    def may_exchange_with(self, peer: NodeId) -> bool:
        return True

    def quarantine_of(self, peer: NodeId) -> str:
        return ""

    def apart_from(self, peer: NodeId) -> bool:
        return False

    async def initiate(self, peer: NodeId, address: Address, codec: CodecName) -> ExchangeReport:
        self.called.append(peer.name)
        if peer.name in self.refusing:
            decline = Decline(DeclineReason.QUARANTINED)
            return ExchangeReport(role=Role.INITIATOR, peer=peer, outcome=Outcome.REFUSED, decline=decline)
        return ExchangeReport(role=Role.INITIATOR, peer=peer, outcome=Outcome.COMPLETE)


class Bench:
    """One node's gossip among members that the test makes up."""

    def __init__(self, own: str, pairing: PairingName, topology: TopologyName, *, in_rounds: bool = False) -> None:
        self.members: list[Member] = []
        self.engine = EngineOfRecord()
        self.faults: list[BaseException] = []
        self.mixed: list[int] = []
        self.gossip = Gossip(
            NodeId(own, 1),
            ExchangeConfig(pairing=pairing, topology=topology),
            topology_named(topology.name.lower()),
            TOLERANCE,
            cast(ExchangeEngine, self.engine),
            Tasks(lambda _, error: self.faults.append(error)),
            lambda: self.members,
            random.Random(1),
            self.mixed.append if in_rounds else None,
        )

    def present(self, *names: str, phase: Phase = Phase.TRAINING, outbound_only: str = "") -> None:
        self.members = [
            Member(NodeId(n, 1), Address(f"{n}:1"), 0, MemberState.ALIVE, phase, n == outbound_only) for n in names
        ]
        self.gossip.members_changed()

    async def called(self) -> set[str]:
        """Take steps; return whom exchanges were started with meanwhile."""
        await let_run()  # one may have been started before
        self.engine.called.clear()
        for _ in range(STEPS):
            self.gossip.stepped(1, 0)
            await let_run()
        assert not self.faults
        return set(self.engine.called)


async def let_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)  # let tasks that can run do so


Make = Callable[..., Bench]


@pytest.fixture
async def node() -> AsyncIterator[Make]:
    made: list[Bench] = []

    def make(
        own: str, pairing: PairingName = PairingName.BIPARTITE, topology: TopologyName = TopologyName.RING
    ) -> Bench:
        made.append(Bench(own, pairing, topology))
        made[-1].gossip.act(Activity.STEPPING)
        return made[-1]

    yield make
    for bench in made:
        bench.gossip.close()


@pytest.mark.parametrize("own", ["a", "c"])
async def test_an_active_node_calls_only_the_passive_ones_next_to_it(node: Make, own: str) -> None:
    bench = node(own)
    bench.present("a", "b", "c", "d", "e", "f")
    assert await bench.called() == {"a": {"b", "f"}, "c": {"b", "d"}}[own]
    assert bench.gossip.problem == ""


@pytest.mark.parametrize("activity", [Activity.STEPPING, Activity.IDLE])
async def test_a_passive_node_starts_nothing(node: Make, activity: Activity) -> None:
    bench = node("b")
    bench.gossip.act(activity)
    bench.present("a", "b", "c", "d")
    assert await bench.called() == set()


async def test_without_the_split_every_node_calls(node: Make) -> None:
    bench = node("b", PairingName.ANY)
    bench.present("a", "b", "c", "d")
    assert await bench.called() == {"a", "c"}


async def test_once_all_have_settled_a_passive_node_calls_too_and_no_sooner(node: Make) -> None:
    bench = node("b")
    bench.present("a", "b", "c", "d", phase=Phase.SETTLING)
    bench.members[3] = Member(NodeId("d", 1), Address("d:1"), 0, MemberState.ALIVE, Phase.TRAINING)
    bench.gossip.act(Activity.SETTLING)
    bench.gossip.judge()
    assert await bench.called() == set(), "d still steps"

    bench.present("a", "b", "c", "d", phase=Phase.SETTLING)
    assert bench.gossip.judge() == ["a", "c"]
    assert await bench.called()

    bench.present("a", "b", "c", "d")
    bench.gossip.act(Activity.STEPPING)
    assert await bench.called() == set(), "it goes on calling after it has been told to step again"


async def test_a_passive_node_that_is_the_last_to_settle_calls_at_once(node: Make) -> None:
    bench = node("b")
    bench.present("a", "b", "c", "d", phase=Phase.SETTLING)
    assert await bench.called() == set()
    bench.gossip.act(Activity.SETTLING)
    assert bench.gossip.judge() == ["a", "c"]
    assert await bench.called()


async def test_while_there_are_no_two_sides_everyone_calls_and_the_node_says_why_once(
    node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bench = node("b")
    bench.present("a", "b", "c")
    bench.present("a", "b", "c")
    assert await bench.called() == {"a", "c"}
    assert "ring topology" in bench.gossip.problem
    assert "a cycle of odd length" in bench.gossip.problem
    assert all(name in bench.gossip.problem for name in ("a", "b", "c"))
    assert caplog.text.count("a cycle of odd length") == 1

    bench.present("a", "b", "c", "d")
    assert await bench.called() == set()
    assert bench.gossip.problem == ""


async def test_at_the_end_of_the_run_nobody_complains_that_there_are_no_two_sides(
    node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bench = node("b")
    bench.present("a", "b", "c", "d", phase=Phase.FINISHED)
    bench.present("a", "b", "c", phase=Phase.FINISHED)
    assert (bench.gossip.problem, caplog.text) == ("", "")


async def test_a_passive_node_that_nobody_can_call_takes_the_split_away(node: Make) -> None:
    for own, whom in (("b", {"a", "c"}), ("a", {"d"})):
        bench = node(own)
        bench.present("a", "b", "c", "d", outbound_only="b")
        assert await bench.called() == whom
        assert "b would only answer, and cannot be called" in bench.gossip.problem


async def test_an_active_node_that_nobody_can_call_is_no_hindrance(node: Make) -> None:
    bench = node("b")
    bench.present("a", "b", "c", "d", outbound_only="a")
    assert await bench.called() == set()
    assert bench.gossip.problem == ""


async def test_a_node_without_the_model_calls_nobody(node: Make) -> None:
    bench = node("a")
    bench.present("a", "b", "c", "d", phase=Phase.INITIALIZING)
    assert await bench.called() == set()
    assert bench.gossip.problem == ""


async def test_a_round_does_not_wait_for_a_neighbor_that_keeps_away_and_each_round_asks_it_again() -> None:
    bench = Bench("a", PairingName.ANY, TopologyName.COMPLETE, in_rounds=True)
    others = [name for name in ("b", "c", "d", "e", "f") if opens("a", name)][:2]
    bench.engine.refusing = {others[0]}
    bench.present("a", *others)
    bench.gossip.act(Activity.STEPPING)
    for step in (1, 2, 3):
        bench.gossip.stepped(1, step)
        await let_run()
        assert bench.mixed == list(range(1, step + 1))
        assert bench.engine.called.count(others[0]) == step
    bench.gossip.close()


async def test_who_broke_off_what_it_had_opened_is_asked_by_this_end_from_then_on() -> None:
    bench = Bench("a", PairingName.ANY, TopologyName.COMPLETE, in_rounds=True)
    (opener,) = [name for name in ("b", "c", "d", "e", "f") if not opens("a", name)][:1]
    bench.present("a", opener)
    bench.gossip.act(Activity.STEPPING)
    bench.engine.refusing = {opener}
    bench.gossip.note(ExchangeReport(role=Role.RESPONDER, peer=NodeId(opener, 1), outcome=Outcome.PARTIAL))
    bench.gossip.stepped(1, 1)
    await let_run()
    assert (bench.engine.called, bench.mixed) == ([opener], [1])
    bench.gossip.close()

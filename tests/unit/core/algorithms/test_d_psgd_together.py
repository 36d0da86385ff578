"""Many nodes in rounds on a virtual clock: none waits for ever, whoever comes, crashes or is cut off, and whenever each
hears of it; and while nothing changes, both ends of an exchange are in the same round.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from adpsgd_node.core.algorithms.d_psgd import (
    Action,
    Admit,
    Asked,
    DPsgd,
    Event,
    InboundEnded,
    Mixed,
    NeighborRenewed,
    NeighborsChanged,
    Open,
    OutboundEnded,
    Paused,
    Resumed,
    Stepped,
    Withdrawn,
    opens,
)
from adpsgd_node.core.exchange.outcome import Outcome

STEP_S, MESSAGE_S, NEWS_S = 0.010, 0.002, 0.050
"""Most time that a step, a message and the news of a change take; each is drawn anew."""
AGREE_S = 0.5
"""Pause of a node that steps no more between two exchanges."""
PATIENCE_S = 0.5
"""Within this time of virtual seconds after the last change every node does more rounds."""


@dataclass
class Node:
    name: str
    boot: int
    policy: DPsgd
    step: int = 0
    gone: bool = False
    timer: float | None = None
    settled: bool = False
    """It steps no more, and exchanges with one neighbor after the other."""
    known: dict[str, int] = field(default_factory=dict)
    """Names and boots of the live nodes, as far as this one has heard."""
    asking: dict[int, tuple[Node, int]] = field(default_factory=dict)
    """Who waits to be let in, and the round it is in, by ticket."""


class World:
    """Nodes, the messages between them, and who met whom in which rounds."""

    def __init__(self, seed: int, edges: set[frozenset[str]]) -> None:
        self.rng = random.Random(seed)
        self.edges = edges
        self.now = 0.0
        self.nodes: dict[str, Node] = {}
        self.met: list[tuple[float, int, int]] = []
        """When an exchange began, and the rounds of both its ends."""
        self._boots = itertools.count(1)
        self._ties = itertools.count()
        self._tickets = itertools.count(1)
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, most_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + self.rng.uniform(0.0, most_s), next(self._ties), do))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self.now, _, do = heapq.heappop(self._due)
            do()
        self.now = until

    def add(self, name: str, step: int = 0) -> None:
        node = Node(name, next(self._boots), DPsgd(random.Random(self.rng.random())), step)
        self.nodes[name] = node
        for other in self.nodes.values():
            self.after(NEWS_S, lambda other=other: self._hear(other, name, node.boot))  # type: ignore[misc]
            self.after(NEWS_S, lambda other=other: self._hear(node, other.name, other.boot))  # type: ignore[misc]
        self.post(node, Resumed())
        self.after(STEP_S, lambda: self._step(node))

    def kill(self, name: str) -> None:
        lost = self.nodes.pop(name)
        lost.gone = True
        for other in self.nodes.values():
            self.after(NEWS_S, lambda other=other: self._hear(other, name, -lost.boot))  # type: ignore[misc]

    def settle(self, name: str) -> None:
        """Have a node step no more; it stays a neighbor, and starts exchanges as a node that agrees with the others."""
        node = self.nodes[name]
        node.settled = True
        self.post(node, Paused())
        self._agree(node)

    def step_again(self, name: str) -> None:
        node = self.nodes[name]
        node.settled = False
        self.post(node, Resumed())
        self.after(STEP_S, lambda: self._step(node))

    def _agree(self, node: Node) -> None:
        others = [name for name in node.known if frozenset((node.name, name)) in self.edges]
        if others and node.settled and not node.gone:
            self._open(node, self.rng.choice(others))

    def _hear(self, node: Node, name: str, boot: int) -> None:
        if name == node.name or abs(boot) < node.known.get(name, 0):
            return  # the news of an earlier boot
        if boot < 0:
            node.known.pop(name, None)
        else:
            before, node.known[name] = node.known.get(name, boot), boot
            if before != boot:
                self.post(node, NeighborRenewed(name))
        near = sorted(other for other in node.known if frozenset((node.name, other)) in self.edges)
        self.post(node, NeighborsChanged(tuple(near), frozenset(other for other in near if opens(node.name, other))))

    def post(self, node: Node, event: Event) -> None:
        if node.gone:
            return
        self._do(node, node.policy.handle(event, self.now))
        if node.settled and isinstance(event, OutboundEnded):
            self.after(AGREE_S, lambda: self._agree(node))

    def _step(self, node: Node) -> None:
        if not node.settled:
            node.step += 1
            self.post(node, Stepped(node.step))

    def _do(self, node: Node, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Open(peer):
                    self._open(node, peer)
                case Admit(ticket):
                    self._exchange(*node.asking.pop(ticket), node, ticket)
                case Mixed():
                    self.after(STEP_S, lambda: self._step(node))
        at = node.policy.deadline()
        if at is not None and at != node.timer:
            node.timer = at
            heapq.heappush(self._due, (max(at, self.now), next(self._ties), lambda: self._expire(node, at)))

    def _expire(self, node: Node, at: float) -> None:
        if node.timer == at and not node.gone:
            node.timer = None
            self._do(node, node.policy.expire(self.now))

    def _open(self, node: Node, name: str) -> None:
        peer, round_ = self.nodes.get(name), node.policy.round

        def arrive() -> None:
            if peer is None or peer.gone or peer.boot != node.known.get(name):
                self.after(MESSAGE_S, lambda: self.post(node, OutboundEnded(name, Outcome.UNREACHABLE)))
                return
            ticket = next(self._tickets)
            peer.asking[ticket] = (node, round_)
            self.post(peer, Asked(ticket, node.name, round_))
            self._watch(node, peer, ticket)

        self.after(MESSAGE_S, arrive)

    def _watch(self, node: Node, peer: Node, ticket: int) -> None:
        """Break a wait off when one of the two is gone, as a stream breaks."""

        def look() -> None:
            if ticket not in peer.asking:
                return
            if peer.gone:
                self.post(node, OutboundEnded(peer.name, Outcome.UNREACHABLE))
            elif node.gone:
                del peer.asking[ticket]
                self.post(peer, Withdrawn(ticket))
            else:
                self.after(NEWS_S, look)

        self.after(NEWS_S, look)

    def _exchange(self, node: Node, round_: int, peer: Node, ticket: int) -> None:
        theirs = peer.policy.round
        self.met.append((self.now, round_, theirs))

        def end() -> None:
            lost = node.gone or peer.gone
            self.post(peer, InboundEnded(ticket))
            outcome = Outcome.BROKEN if lost else Outcome.COMPLETE
            self.after(MESSAGE_S, lambda: self.post(node, OutboundEnded(peer.name, outcome, theirs)))

        self.after(MESSAGE_S, end)

    def assert_all_go_on(self, why: str) -> None:
        self.run(PATIENCE_S)
        before = {name: node.step for name, node in self.nodes.items()}
        self.run(PATIENCE_S)
        still = {name: node.step for name, node in self.nodes.items() if node.step <= before[name] + 5}
        assert not still, f"{why}: {still} do no more rounds"


def names(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


def graph(rng: random.Random, count: int) -> set[frozenset[str]]:
    """Return a ring with some chords."""
    all_ = names(count)
    ring = {frozenset((all_[i], all_[(i + 1) % count])) for i in range(count)}
    return ring | {frozenset(rng.sample(all_, 2)) for _ in range(rng.randrange(2 * count))}


@pytest.mark.parametrize("block", range(4))
def test_nobody_waits_for_ever_however_nodes_come_and_go(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        rng = random.Random(seed)
        count = rng.randrange(3, 8)
        world = World(seed, graph(rng, count))
        absent = names(count)
        rng.shuffle(absent)
        while absent:
            world.add(absent.pop())
            world.run(rng.choice([0.0, 0.0, 0.02, 0.5]))
        world.assert_all_go_on(f"seed {seed}, after all have come")
        for _ in range(rng.randrange(1, 8)):
            name = rng.choice(names(count))
            if name in world.nodes:
                step = world.nodes[name].step
                world.kill(name)
                world.run(rng.choice([0.0, 0.02, 0.3]))
                world.add(name, rng.choice([0, step]))
                world.run(rng.choice([0.0, 0.02, 0.3]))
        world.assert_all_go_on(f"seed {seed}, after crashes")
        calm = world.now
        world.run(PATIENCE_S)
        unequal = [(mine, theirs) for at, mine, theirs in world.met if at > calm and mine != theirs]
        assert not unequal, f"seed {seed}: nodes of different rounds have met: {unequal[:3]}"


@pytest.mark.parametrize("seed", range(12))
def test_nodes_that_step_no_more_and_agree_meanwhile_hold_up_nobody(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randrange(3, 7)
    world = World(seed, graph(rng, count))
    for name in names(count):
        world.add(name)
    world.assert_all_go_on("all have come")
    settled = rng.sample(names(count), rng.randrange(1, count))
    for name in settled:
        world.settle(name)
        world.run(rng.choice([0.0, 0.02, 0.3]))
    stepping = {name: node for name, node in world.nodes.items() if not node.settled}
    world.run(20 * AGREE_S)  # within which those that step no more have asked each neighbor once
    before = {name: node.step for name, node in stepping.items()}
    world.run(PATIENCE_S)
    still = [name for name, node in stepping.items() if node.step <= before[name] + 5]
    assert not still, f"seed {seed}: {still} do no more rounds"

    for name in settled:
        world.step_again(name)
        world.run(rng.choice([0.0, 0.02, 0.3]))
    world.assert_all_go_on(f"seed {seed}, after all step again")

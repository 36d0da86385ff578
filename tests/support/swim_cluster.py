"""Run many SWIM machines on one virtual clock, over a network that delays, loses and parts."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from adpsgd_node.core.membership import Identity, MembershipConfig, MemberState, Swim
from adpsgd_node.core.membership.effect import AskToJoin, Effect, SendPacket
from adpsgd_node.core.membership.event import Event, JoinAnswered, JoinFailed, PacketReceived
from adpsgd_node.ids import Address, NodeId, RunId

__all__ = ["Node", "SwimCluster", "address_of"]

MAX_STEPS = 2_000_000
"""Events after which a run is taken for an endless loop of packets."""


def address_of(name: str) -> Address:
    return Address(f"{name}:7000")


@dataclass(slots=True)
class Node:
    """One machine, and everything it ever asked for or told."""

    swim: Swim
    address: Address
    running: bool = True
    paused: bool = False
    unread: list[Callable[[], None]] = field(default_factory=list)
    told: list[tuple[float, Effect]] = field(default_factory=list)

    def states(self) -> dict[str, MemberState]:
        return {member.name: member.state for member in self.swim.members()}

    def live_names(self) -> list[str]:
        return [member.name for member in self.swim.live()]

    def heard(self, kind: type, since: float = 0.0) -> list[Effect]:
        return [effect for time, effect in self.told if isinstance(effect, kind) and time >= since]


class SwimCluster:
    """A deterministic cluster: the same seed always gives the same history."""

    def __init__(self, seed: int = 1, config: MembershipConfig | None = None) -> None:
        self.now = 0.0
        self.seed = seed
        self.config = config or MembershipConfig()
        self.loss = 0.0
        self.nodes: dict[Address, Node] = {}
        self.packets = 0
        self._rng = random.Random(seed)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._sides: list[frozenset[Address]] = []

    def add(
        self,
        name: str,
        seeds: Iterable[str] = (),
        *,
        boot: int = 1,
        address: Address | None = None,
        run: str = "run",
    ) -> Node:
        """Start a node at the present time; one that ran at the same address is gone."""
        address = address or address_of(name)
        identity = Identity(id=NodeId(name, boot), address=address, run_id=RunId(run))
        rng = random.Random(f"{self.seed} {name} {boot} {address}")
        swim = Swim(identity, self.config, rng, seeds=[address_of(seed) for seed in seeds])
        if address in self.nodes:
            self.nodes[address].running = False
        node = Node(swim, address)
        self.nodes[address] = node
        self._carry_out(node, swim.start(self.now))
        return node

    def cluster_of(self, count: int) -> list[Node]:
        """Start `count` nodes that join through the first."""
        names = [f"n{index:02d}" for index in range(count)]
        return [self.add(name, names[:1]) for name in names]

    def tell(self, node: Node, event: Event) -> None:
        """Hand `node` one event now."""
        self._carry_out(node, node.swim.handle(event, self.now))

    def crash(self, node: Node) -> None:
        node.running = False

    def pause(self, node: Node) -> None:
        """Stop the process as SIGSTOP does: it neither acts nor reads, but what is sent to it is kept."""
        node.paused = True

    def resume(self, node: Node) -> None:
        node.paused = False
        unread, node.unread = node.unread, []
        for receive in unread:
            receive()
        self._arm(node)

    def partition(self, *sides: Sequence[Node]) -> None:
        self._sides = [frozenset(node.address for node in side) for side in sides]

    def heal(self) -> None:
        self._sides = []

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.run_until(lambda: False, seconds, required=False)

    def run_until(self, condition: Callable[[], bool], limit_s: float, *, required: bool = True) -> float:
        """Let virtual time pass until `condition` holds; return the seconds it took."""
        started = self.now
        for _ in range(MAX_STEPS):
            if condition():
                return self.now - started
            if not self._queue or self._queue[0][0] > started + limit_s:
                self.now = started + limit_s
                assert not required, f"not reached in {limit_s} s (seed {self.seed}):\n{self.describe()}"
                return limit_s
            self.now, _, action = heapq.heappop(self._queue)
            action()
        raise AssertionError(f"more than {MAX_STEPS} events in {self.now - started} s: an endless loop of packets?")

    def agreed(self, *nodes: Node) -> bool:
        """Tell whether these nodes hold exactly each other live and ALIVE, each as it announces itself."""
        expected = sorted((node.swim.self_member for node in nodes), key=lambda member: member.name)
        return all(list(node.swim.live()) == expected for node in nodes)

    def describe(self) -> str:
        return "\n".join(
            f"{node.swim.self_member}: " + ", ".join(map(str, node.swim.members()))
            for node in self.nodes.values()
            if node.running
        )

    def _carry_out(self, node: Node, effects: Iterable[Effect]) -> None:
        for effect in effects:
            node.told.append((self.now, effect))
            if isinstance(effect, SendPacket):
                self._send(node, effect)
            elif isinstance(effect, AskToJoin):
                self._ask(node, effect.seed)
        self._arm(node)

    def _arm(self, node: Node) -> None:
        deadline = node.swim.deadline()
        if deadline is not None and node.running and not node.paused:
            self._at(max(deadline, self.now), lambda: self._wake(node))

    def _wake(self, node: Node) -> None:
        deadline = node.swim.deadline()
        if deadline is not None and deadline <= self.now and node.running and not node.paused:
            self._carry_out(node, node.swim.expire(self.now))

    def _send(self, sender: Node, effect: SendPacket) -> None:
        self.packets += 1
        if self._rng.random() >= self.loss:
            self._deliver(sender, effect.address, lambda node: self.tell(node, PacketReceived(effect.packet)))

    def _ask(self, asker: Node, seed: Address) -> None:
        request = asker.swim.join_request()

        def answer(node: Node) -> None:
            response, effects = node.swim.answer_join(request, self.now)
            self._carry_out(node, effects)
            self._deliver(node, asker.address, lambda _: self.tell(asker, JoinAnswered(seed, response)), asker)

        target = self.nodes.get(seed)
        if target is None or not target.running or not self._connected(asker.address, seed):
            self._at(self.now + 0.01, lambda: self._read(asker, lambda: self.tell(asker, JoinFailed(seed, "refused"))))
        else:
            self._deliver(asker, seed, answer)

    def _deliver(
        self, sender: Node, address: Address, receive: Callable[[Node], None], only: Node | None = None
    ) -> None:
        def arrive() -> None:
            node = self.nodes.get(address)
            reached = node is not None and self._connected(sender.address, address) and only in (None, node)
            if node is not None and reached:
                self._read(node, lambda: receive(node))

        self._at(self.now + self._rng.uniform(0.001, 0.02), arrive)

    def _read(self, node: Node, receive: Callable[[], None]) -> None:
        if node.paused:
            node.unread.append(receive)
        elif node.running:
            receive()

    def _connected(self, one: Address, other: Address) -> bool:
        return not self._sides or any(one in side and other in side for side in self._sides)

    def _at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time, next(self._order), action))

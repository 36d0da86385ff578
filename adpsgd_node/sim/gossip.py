"""Decide in virtual time with whom a node exchanges, by the rules of `daemon.gossip`, and let it step."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from adpsgd_node.core.algorithms.ad_psgd import (
    Activity,
    ActivityChanged,
    AdPsgd,
    Event,
    ExchangeEnded,
    NeighborRenewed,
    NeighborsChanged,
    StartExchange,
    Stepped,
)
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.membership.member import HOLDING
from adpsgd_node.core.topology import topology_named
from adpsgd_node.ids import NodeId

if TYPE_CHECKING:
    from adpsgd_node.sim.node import ExchangeNode

__all__ = ["Gossip"]


class Gossip:
    """The steps of one node, and the exchanges it starts."""

    def __init__(self, node: ExchangeNode, rng: random.Random) -> None:
        self.completed_at = -1.0
        """When this node last completed an exchange that it had started; `ExchangeNode.served_at` has the others."""
        self._node = node
        self._rng = rng
        self._topology = topology_named(node.setup.topology)
        self._policy = AdPsgd(exchanges_per_step=1.0, rng=rng)
        self._ids: dict[str, NodeId] = {}
        self._neighbors: tuple[str, ...] = ()
        self._wake_at: float | None = None
        self._stepping = False

    def begin(self) -> None:
        """Step from now on, and exchange."""
        self._stepping = True
        self._post(ActivityChanged(Activity.STEPPING))
        self._node.process.after(self._pause_s(), self._step)

    def stop(self) -> None:
        """Step no more, and start no exchange any more; what runs goes on."""
        self._stepping = False
        self._post(ActivityChanged(Activity.STOPPED))

    def members_changed(self) -> None:
        """Lay the topology anew over the members that hold the model."""
        live = self._node.process.life.swim.live()
        before, self._ids = self._ids, {member.name: member.id for member in live}
        for name in before:
            if name in self._neighbors and before[name] != self._ids.get(name):
                self._post(NeighborRenewed(name))
        names = self._topology.placed([member.name for member in live if member.phase in HOLDING])
        own = self._node.id.name
        uncalled = {member.name for member in live if member.outbound_only}
        neighbors = self._topology.neighbors(names, own) if own in names else ()
        self._neighbors = tuple(name for name in neighbors if name not in uncalled)
        self._post(NeighborsChanged(self._neighbors))

    def _step(self) -> None:
        if self._stepping:
            self._node.replica.step(self._rng)
            self._post(Stepped(1))
            self._node.process.after(self._pause_s(), self._step)

    def _pause_s(self) -> float:
        return self._node.setup.step_interval_s * self._rng.uniform(0.5, 1.5)

    def _post(self, event: Event) -> None:
        self._carry_out(self._policy.handle(event, self._node.now))

    def _carry_out(self, actions: tuple[StartExchange, ...]) -> None:
        for action in actions:
            self._node.process.after(0.0, self._exchange, action.peer)
        due = self._policy.deadline()
        if due is not None and (self._wake_at is None or due < self._wake_at):
            self._wake_at = max(due, self._node.now)
            self._node.process.after(self._wake_at - self._node.now, self._wake, self._wake_at)

    def _wake(self, set_for: float) -> None:
        if self._wake_at != set_for:
            return
        self._wake_at = None
        due = self._policy.deadline()
        self._carry_out(self._policy.expire(self._node.now) if due is not None and due <= self._node.now else ())

    def _exchange(self, name: str) -> None:
        live = self._node.process.life.swim.live()
        member = next((member for member in live if member.name == name), None)
        if member is None or member.outbound_only or member.id in self._node.settling.peers:
            self._post(ExchangeEnded(name, Outcome.UNREACHABLE))
            return
        self._node.initiate(member, lambda outcome: self._ended(name, outcome))

    def _ended(self, name: str, outcome: Outcome) -> None:
        if outcome is Outcome.COMPLETE:
            self.completed_at = self._node.now
        self._post(ExchangeEnded(name, outcome))

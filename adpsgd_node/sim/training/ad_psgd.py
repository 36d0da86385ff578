"""Train by AD-PSGD in virtual time: the policy and the topology are those of real nodes.

A step takes its gradient at the parameters as they are when it begins, and applies it to what exchanges have made of
them when it ends. Nothing in a step waits for an exchange.

Real nodes average chunk by chunk: a chunk is read, sent, and added to a window of chunks later, so that of a long
exchange each part is on its way only for a small part of the time. Here all is read at one moment, so long before the
end of the exchange as a chunk is on its way, and at the end the same delta is added to both with opposite signs.
"""

from __future__ import annotations

import functools
import math
import random

import numpy as np

from adpsgd_node.codecs import codec_named
from adpsgd_node.core.algorithms.ad_psgd import (
    Activity,
    ActivityChanged,
    AdPsgd,
    Event,
    ExchangeEnded,
    NeighborsChanged,
    StartExchange,
    Stepped,
)
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.topology import topology_named
from adpsgd_node.sim.clock import Clock
from adpsgd_node.sim.training.contract import Training
from adpsgd_node.sim.training.objective import Vector
from adpsgd_node.sim.training.rounding import round_trip
from adpsgd_node.sim.training.scenario import TrainingScenario
from adpsgd_node.sim.training.transfer import Transfer, Transfers

__all__ = ["AdPsgdTraining"]

MAX_INBOUND = 2
"""Exchanges that a node serves at one time, as `adpsgd-node up` does; to more it says that it is busy."""

WINDOW_BYTES = 6 << 20
"""Bytes that are on their way at one time, as `adpsgd-node up` has six chunks of 1 MiB."""

_ONE_STEP = Stepped(1)


class _Exchange:
    """One exchange from the `Accept` to its end."""

    __slots__ = ("alive", "began_s", "delta", "ends_s", "initiator", "on_their_way", "responder")

    def __init__(self, initiator: int, responder: int, began_s: float) -> None:
        self.initiator = initiator
        self.responder = responder
        self.began_s = began_s
        self.ends_s = began_s
        self.on_their_way = 0
        """Transfers, of two, whose arrival is known."""
        self.alive = True
        self.delta: Vector | None = None
        """What the initiator gets and the responder gives, [dimension]; None: not taken yet."""


class AdPsgdTraining(Training):
    """Nodes that step for themselves and average in pairs."""

    def __init__(self, scenario: TrainingScenario) -> None:
        super().__init__(scenario)
        nodes = scenario.nodes
        self.parameters: Vector = np.tile(self.objective.start, (nodes, 1))
        """What every node holds, [nodes, dimension]."""
        self._clock = Clock()
        self._transfers = Transfers(self._clock, self.links)
        self._payload_bytes = scenario.network.payload_bytes
        self._in_flight = min(1.0, WINDOW_BYTES / max(1, scenario.network.model_bytes))
        self._lossless = codec_named(scenario.network.codec).lossless
        self._rows = list(self.parameters)  # views: indexing a list is faster than indexing an array
        self._gradients: list[Vector] = [self.objective.start for _ in range(nodes)]
        self._policies = [self._policy(node) for node in range(nodes)]
        self._wake_at = [math.inf] * nodes
        self._inbound = [0] * nodes
        self._running: dict[int, _Exchange] = {}  # by initiator
        self._alive = [True] * nodes
        self._known_lost: set[str] = set()
        self._index = {name: node for node, name in enumerate(self.names)}

    def run(self) -> None:
        self._lay()
        for node in range(self.scenario.nodes):
            self._post(node, ActivityChanged(Activity.STEPPING))
            self._begin_step(node)
        for node, time in self.scenario.crashes.items():
            self._clock.at(time, self._crash, node)
        self._clock.run_until(math.inf)
        if self.record.ended_s is None:
            raise AssertionError("the nodes stopped stepping, and nobody said so")

    def _policy(self, node: int) -> AdPsgd:
        rng = random.Random(f"{self.scenario.seed} {node} ad-psgd")
        return AdPsgd(exchanges_per_step=self.scenario.exchanges_per_step, rng=rng)

    def _lay(self) -> None:
        """Lay the topology over the nodes that are not known to be lost."""
        topology = topology_named(self.scenario.topology)
        names = [name for name in self.names if name not in self._known_lost]
        for name in names:
            self._post(self._index[name], NeighborsChanged(topology.neighbors(names, name)))

    def _begin_step(self, node: int) -> None:
        self._gradients[node] = self.objective.gradient(node, self._rows[node])
        self._clock.after(self.times.next_s(node), self._end_step, node)

    def _end_step(self, node: int) -> None:
        record = self.record
        if record.ended_s is not None or not self._alive[node]:
            return
        gradient = self._gradients[node]
        gradient *= self.scenario.learning_rate
        self._rows[node] -= gradient
        record.steps += 1
        if record.look_is_due:
            record.look(self._clock.now, self._live_models())
        if record.complete:
            record.end(self._clock.now, self._live_models())
            return
        self._post(node, _ONE_STEP)
        self._begin_step(node)

    def _live_models(self) -> Vector:
        return self.parameters if all(self._alive) else self.parameters[self._alive]

    def _post(self, node: int, event: Event) -> None:
        policy = self._policies[node]
        actions = policy.handle(event, self._clock.now)
        if actions:
            self._open(node, actions)
        elif (due := policy.deadline()) is not None and due < self._wake_at[node]:
            self._wake_at[node] = due
            self._clock.at(due, self._wake, node, due)

    def _wake(self, node: int, set_for: float) -> None:
        if self._wake_at[node] != set_for:
            return
        self._wake_at[node] = math.inf
        due = self._policies[node].deadline()
        if due is not None and self._alive[node] and self.record.ended_s is None:
            self._open(node, self._policies[node].expire(self._clock.now))

    def _open(self, node: int, actions: tuple[StartExchange, ...]) -> None:
        for action in actions:
            peer = self._index[action.peer]
            self._clock.after(self.links.latency_of(node, peer), self._opened, node, peer)

    def _opened(self, initiator: int, responder: int) -> None:
        """Answer an `Open`: the answer takes one latency back, the first bytes come with an `Accept`."""
        if self.record.ended_s is not None or not self._alive[initiator]:
            return
        back_s = self.links.latency_of(responder, initiator)
        if not self._alive[responder]:
            self._clock.after(back_s, self._ended, initiator, responder, Outcome.UNREACHABLE)
        elif self._inbound[responder] >= MAX_INBOUND:
            self.record.declined += 1
            self._clock.after(back_s, self._ended, initiator, responder, Outcome.DECLINED)
        else:
            self._inbound[responder] += 1
            self._clock.after(back_s, self._accepted, initiator, responder)

    def _accepted(self, initiator: int, responder: int) -> None:
        """Let the two transfers begin: the responder's as soon as the initiator's first bytes have come."""
        if not self._alive[initiator]:
            self._inbound[responder] -= 1
            return
        if not self._alive[responder]:
            self._ended(initiator, responder, Outcome.BROKEN)
            return
        exchange = self._running[initiator] = _Exchange(initiator, responder, self._clock.now)
        on_its_way = functools.partial(self._on_its_way, exchange)
        count, there_s = self._payload_bytes, self.links.latency_of(initiator, responder)
        self._transfers.send(Transfer(initiator, responder, count, exchange.began_s, on_its_way))
        self._transfers.send(Transfer(responder, initiator, count, exchange.began_s + there_s, on_its_way))

    def _on_its_way(self, exchange: _Exchange, arrival_s: float) -> None:
        exchange.on_their_way += 1
        exchange.ends_s = max(exchange.ends_s, arrival_s)
        if exchange.on_their_way == 2:
            ends_s = exchange.ends_s + self.scenario.network.overhead_s
            snapshot_s = ends_s - self._in_flight * (ends_s - exchange.began_s)
            self._clock.at(snapshot_s, self._take_snapshots, exchange)
            self._clock.at(ends_s, self._complete, exchange)

    def _take_snapshots(self, exchange: _Exchange) -> None:
        if exchange.alive:
            theirs, mine = self._rows[exchange.responder], self._rows[exchange.initiator]
            if not self._lossless:
                codec = self.scenario.network.codec
                theirs, mine = round_trip(codec, theirs), round_trip(codec, mine)
            exchange.delta = theirs - mine
            exchange.delta *= 0.5

    def _complete(self, exchange: _Exchange) -> None:
        if not exchange.alive or self.record.ended_s is not None:
            return
        assert exchange.delta is not None
        initiator, responder = exchange.initiator, exchange.responder
        self._rows[initiator] += exchange.delta
        self._rows[responder] -= exchange.delta
        self.record.exchanges += 1
        self.record.bytes_sent += 2 * self._payload_bytes
        del self._running[initiator]
        self._inbound[responder] -= 1
        self._ended(initiator, responder, Outcome.COMPLETE)

    def _ended(self, initiator: int, responder: int, outcome: Outcome) -> None:
        if self.record.ended_s is not None or not self._alive[initiator]:
            return
        if outcome is Outcome.BROKEN:
            self.record.broken += 1
        self._post(initiator, ExchangeEnded(self.names[responder], outcome))

    def _crash(self, node: int) -> None:
        """Lose a node: what it had in hand is averaged on neither side, and later the others know."""
        if self.record.ended_s is not None:
            return
        self._alive[node] = False
        for exchange in [found for found in self._running.values() if node in (found.initiator, found.responder)]:
            exchange.alive = False
            del self._running[exchange.initiator]
            self._inbound[exchange.responder] -= 1
            other_s = self.links.latency_of(node, exchange.initiator)
            self._clock.after(other_s, self._ended, exchange.initiator, exchange.responder, Outcome.BROKEN)
        if not any(self._alive):
            self.record.end(self._clock.now, self._live_models(), f"{self.names[node]} crashed, the last node")
            return
        self._clock.after(self.scenario.failure.detection_s, self._hold_dead, node)

    def _hold_dead(self, node: int) -> None:
        if self.record.ended_s is None:
            self._known_lost.add(self.names[node])
            self._lay()

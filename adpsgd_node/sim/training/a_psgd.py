"""Train by A-PSGD in virtual time: parameter servers that apply every gradient as it comes.

The first nodes serve a part of the parameters each, besides training. A worker pushes its gradient to all servers, each
applies its part after those that came before it, and answers with the parameters it then has; the worker goes on when
all parts are there. One update moves the parameters by an n-th of the learning rate, so that all workers together move
them as far in a step as one does under the other algorithms.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np

from adpsgd_node.sim.clock import Clock
from adpsgd_node.sim.training.contract import Training
from adpsgd_node.sim.training.objective import Vector
from adpsgd_node.sim.training.scenario import TrainingScenario
from adpsgd_node.sim.training.transfer import Transfer, Transfers

__all__ = ["APsgdTraining"]


class APsgdTraining(Training):
    """Workers that wait for the servers, but not for each other."""

    def __init__(self, scenario: TrainingScenario) -> None:
        super().__init__(scenario)
        nodes, servers = scenario.nodes, scenario.servers
        network = scenario.network
        self.parameters: Vector = self.objective.start
        """What the servers hold, [dimension]."""
        self._clock = Clock()
        self._transfers = Transfers(self._clock, self.links)
        self._part_bytes = network.payload_bytes / servers
        self._apply_s = network.model_bytes / servers / network.server_bytes_per_s + network.overhead_s
        edges = np.linspace(0, scenario.objective.dimension, servers + 1).astype(int).tolist()
        self._parts = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
        self._free_at = [0.0] * servers
        self._versions = [0] * servers
        self._staleness = 0  # of all updates: those of others since the worker had pulled
        self._rate = scenario.learning_rate / nodes
        self._pulled: list[Vector] = [self.objective.start for _ in range(nodes)]
        self._seen = [[0] * servers for _ in range(nodes)]  # the version of each part that a worker pulled last
        self._gradients: list[Vector] = [self.objective.start for _ in range(nodes)]
        self._applied = [0] * nodes
        self._pending = [0] * nodes
        self._alive = [True] * nodes

    @property
    def staleness_mean(self) -> float | None:
        updates = sum(self._versions)
        return self._staleness / updates if updates else None

    def run(self) -> None:
        for node in range(self.scenario.nodes):
            self._begin_step(node)
        for node, time in self.scenario.crashes.items():
            self._clock.at(time, self._crash, node)
        self._clock.run_until(math.inf)
        assert self.record.ended_s is not None, "the workers stopped, and nobody said so"

    @property
    def _over(self) -> bool:
        return self.record.ended_s is not None

    def _begin_step(self, node: int) -> None:
        self._gradients[node] = self.objective.gradient(node, self._pulled[node])
        self._clock.after(self.times.next_s(node), self._push, node)

    def _push(self, node: int) -> None:
        if self._over or not self._alive[node]:
            return
        servers = self.scenario.servers
        self._applied[node] = self._pending[node] = servers
        for turn in range(servers):  # each begins with another server, lest all wait for the first one
            server = (node + turn) % servers
            self._send(node, server, functools.partial(self._pushed, node, server))

    def _send(self, source: int, target: int, arrived: Callable[[], None]) -> None:
        """Carry a part of a gradient, or of the parameters."""

        def on_its_way(arrival_s: float) -> None:
            self._clock.at(arrival_s, arrived)

        self._transfers.send(Transfer(source, target, self._part_bytes, self._clock.now, on_its_way))

    def _pushed(self, node: int, server: int) -> None:
        """Let a server apply a part of a gradient when it has applied those that came before."""
        if self._over or not self._alive[server]:
            return
        self._free_at[server] = max(self._clock.now, self._free_at[server]) + self._apply_s
        self._clock.at(self._free_at[server], self._apply, node, server)

    def _apply(self, node: int, server: int) -> None:
        if self._over or not self._alive[server]:
            return
        part = self._parts[server]
        self.parameters[part] -= self._rate * self._gradients[node][part]
        self._staleness += self._versions[server] - self._seen[node][server]
        self._versions[server] += 1
        self._seen[node][server] = self._versions[server]
        answer = self.parameters[part].copy()
        self._send(server, node, functools.partial(self._pull, node, server, answer))
        self._applied[node] -= 1
        if self._applied[node] == 0:
            self._step_made()

    def _step_made(self) -> None:
        record = self.record
        record.steps += 1
        if record.look_is_due:
            record.look(self._clock.now, self.parameters[np.newaxis])
        if record.complete:
            record.end(self._clock.now, self.parameters[np.newaxis])

    def _pull(self, node: int, server: int, answer: Vector) -> None:
        if self._over or not self._alive[node]:
            return
        self._pulled[node][self._parts[server]] = answer
        self._pending[node] -= 1
        if self._pending[node] == 0:
            self.record.exchanges += 1
            self.record.bytes_sent += 2 * self.scenario.network.payload_bytes
            self._begin_step(node)

    def _crash(self, node: int) -> None:
        """Lose a node: one that only works is not missed, without a server nobody goes on."""
        self._alive[node] = False
        if self._over:
            return
        if node < self.scenario.servers:
            reason = f"{self.names[node]} crashed at {self._clock.now:g} s: it was a parameter server"
            self._clock.after(self.scenario.failure.detection_s, self._stop, reason)

    def _stop(self, reason: str) -> None:
        if not self._over:
            self.record.end(self._clock.now, self.parameters[np.newaxis], reason)

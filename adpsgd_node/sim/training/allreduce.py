"""Train by all-reduce in virtual time: a barrier in every step, and one ring over all nodes.

A ring all-reduce of B bytes over n nodes takes 2 (n - 1) / n * B / rate + 2 (n - 1) * latency on its slowest link
(Patarasuk, Yuan 2009). Gradients travel in buckets, the first ones beside the part of the backward pass that still
computes the others, so only what is left shows: at least the last bucket, which no computation hides.
"""

from __future__ import annotations

import math

import numpy as np

from adpsgd_node.sim.training.contract import Training
from adpsgd_node.sim.training.scenario import TrainingScenario

__all__ = ["BUCKET_BYTES", "AllReduceTraining"]

BUCKET_BYTES = 25 << 20
"""Bytes of gradients that travel together, as DistributedDataParallel does by default."""


class AllReduceTraining(Training):
    """Nodes that all hold the same parameters, and step together."""

    def __init__(self, scenario: TrainingScenario) -> None:
        super().__init__(scenario)
        network = scenario.network
        self._ring_s = self._reduce_s()
        self._last_bucket_s = self._ring_s / max(1, math.ceil(network.payload_bytes / BUCKET_BYTES))
        self._bytes_per_step = 2 * (scenario.nodes - 1) * network.payload_bytes  # of all nodes together

    def run(self) -> None:
        scenario, record = self.scenario, self.record
        nodes = range(scenario.nodes)
        crash_s, lost = min(((time, node) for node, time in scenario.crashes.items()), default=(math.inf, -1))
        parameters, now = self.objective.start, 0.0
        while not record.complete:
            slowest_s = float(self.times.next_of(nodes).max())
            now += slowest_s + self._exposed_s(slowest_s)
            if now > crash_s:
                noticed = crash_s + scenario.failure.detection_s
                reason = f"{self.names[lost]} crashed at {crash_s:g} s, and no all-reduce ends without it"
                record.end(noticed, parameters[np.newaxis], reason)
                return
            gradients = self.objective.gradients(nodes, parameters)
            parameters = parameters - scenario.learning_rate * gradients.mean(axis=0)
            record.steps += scenario.nodes
            record.exchanges += 1
            record.bytes_sent += self._bytes_per_step
            if record.look_is_due:
                record.look(now, parameters[np.newaxis])
        record.end(now, parameters[np.newaxis])

    def _reduce_s(self) -> float:
        """Return how long a ring all-reduce takes that nothing hides."""
        count = self.scenario.nodes
        if count == 1:
            return 0.0
        links = [(node, (node + 1) % count) for node in range(count)]
        rate = min(min(self.links.rate_up(a, b), float(self.links.rate[b])) for a, b in links)
        latency_s = max(self.links.latency_of(a, b) for a, b in links)
        return 2 * (count - 1) / count * self.scenario.network.payload_bytes / rate + 2 * (count - 1) * latency_s

    def _exposed_s(self, slowest_s: float) -> float:
        """Return how long all wait once the slowest has computed its step."""
        if self.scenario.nodes == 1:
            return 0.0
        network = self.scenario.network
        hidden_s = network.overlap * slowest_s
        return max(self._ring_s - hidden_s, self._last_bucket_s) + network.overhead_s

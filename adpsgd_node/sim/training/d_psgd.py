"""Train by D-PSGD in virtual time: x_i <- sum_j w_ij x_j - rate g_i (Lian et al. 2017, arXiv 1705.09056, algorithm 1).

In each round a node sends its parameters to all neighbors as soon as it has them, and computes its gradient at them
meanwhile; the round is over when the gradient and the parameters of all neighbors are there, and its own have left.
So a round of a node waits for the previous one of all its neighbors, and a slow node holds up those around it, then
those around them.

Rounds hang together by nothing but these times, so a round is computed for all nodes at once, however far apart in time
they are in it. The messages of a round queue for the links among themselves alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from adpsgd_node.sim.training.contract import Training
from adpsgd_node.sim.training.mixing import Flags, Mixing
from adpsgd_node.sim.training.objective import Vector
from adpsgd_node.sim.training.rounding import round_trip
from adpsgd_node.sim.training.scenario import TrainingScenario

__all__ = ["DPsgdTraining"]


class DPsgdTraining(Training):
    """Nodes that mix with all their neighbors in every step."""

    def __init__(self, scenario: TrainingScenario) -> None:
        super().__init__(scenario)
        nodes = scenario.nodes
        self.parameters: Vector = np.tile(self.objective.start, (nodes, 1))
        """What every member holds at the beginning of the round, [members, dimension]."""
        self._members: Sequence[int] = range(nodes)
        self._lost_s: Vector = np.array([scenario.crashes.get(node, math.inf) for node in range(nodes)])
        self._began_s: Vector = np.zeros(nodes)  # when each member begins the round; infinite: it is lost
        self._mixing = Mixing(scenario, self.links, self._members)

    def run(self) -> None:
        record = self.record
        while not record.complete:
            self._leave_out_the_dead()
            if not self._members:
                last = max(self.scenario.crashes, key=lambda node: self.scenario.crashes[node])
                record.end(self.scenario.crashes[last], self.parameters, f"{self.names[last]} crashed, the last node")
                return
            alive = self._round()
            now_s = float(self._began_s[alive].max(initial=0.0))
            if alive.any() and record.look_is_due:
                record.look(now_s, self.parameters[alive])
            if record.complete:
                record.end(now_s, self.parameters[alive])

    def _round(self) -> Flags:
        """Carry out one round; return which members live at its end."""
        mixing, network, record = self._mixing, self.scenario.network, self.record
        left_s = mixing.departures(self._began_s)
        arrived_s, missing = mixing.arrivals(left_s, self._lost_s)
        mixed_s = np.maximum(arrived_s, left_s.max(axis=1, initial=-math.inf))
        if missing.any():  # who waits for the lost ones goes on when they are held dead
            mixing.drop(missing)
            held_dead_s = (self._lost_s + self.scenario.failure.detection_s)[mixing.neighbors]
            mixed_s = np.maximum(mixed_s, np.where(missing, held_dead_s, -math.inf).max(axis=1))
        if mixing.degree:
            mixed_s = mixed_s + network.overhead_s
        ended_s = np.maximum(self._began_s + self.times.next_of(self._members), mixed_s)
        alive: Flags = ended_s <= self._lost_s
        self.parameters = np.where(alive[:, np.newaxis], self._stepped(), self.parameters)
        record.bytes_sent += network.payload_bytes * mixing.delivered(missing, alive)
        record.exchanges += int(alive.sum())
        record.steps += int(alive.sum())
        self._began_s = np.where(alive, ended_s, math.inf)
        return alive

    def _stepped(self) -> Vector:
        """Return what the round makes of every member's parameters."""
        gradients = self.objective.gradients(self._members, self.parameters)
        travelled = round_trip(self.scenario.network.codec, self.parameters)
        # With a lossy codec a node's own term is what the others read of it: only so the mean is kept.
        moved = self._mixing.mix(travelled) - travelled
        return self.parameters + moved - self.scenario.learning_rate * gradients

    def _leave_out_the_dead(self) -> None:
        """Lay the graph anew without the lost members, once no other is in a round from before they were held dead."""
        dead = np.isinf(self._began_s)
        if not dead.any():
            return
        earliest_s = self._began_s.min()  # infinite when nobody is left
        stays = ~dead | (self._lost_s + self.scenario.failure.detection_s > earliest_s)
        if stays.all():
            return
        self._members = [node for node, kept in zip(self._members, stays, strict=True) if kept]
        self.parameters, self._lost_s = self.parameters[stays], self._lost_s[stays]
        self._began_s = self._began_s[stays]
        self._mixing = Mixing(self.scenario, self.links, self._members)

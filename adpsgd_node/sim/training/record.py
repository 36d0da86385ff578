"""Write down what a simulated training did: steps, bytes, and how loss and consensus went."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adpsgd_node.sim.training.objective import Objective, Vector
from adpsgd_node.sim.training.scenario import TrainingScenario

__all__ = ["LOOKS", "Point", "Record", "consensus_distance"]

LOOKS = 1000
"""How often loss and consensus are measured, about, from the start to the end."""
MAX_POINTS = 4 * LOOKS
"""Most points kept."""


@dataclass(frozen=True, slots=True)
class Point:
    """The models at one moment."""

    time_s: float
    samples: int
    loss: float
    """Of the mean of all models."""
    consensus_distance: float


class Record:
    """The account of one simulation."""

    def __init__(self, scenario: TrainingScenario, objective: Objective) -> None:
        self.steps = 0
        """Steps of all nodes together."""
        self.bytes_sent = 0
        """Bytes of parameters and gradients that arrived, of all nodes together."""
        self.exchanges = 0
        """Complete exchanges, mixings of one node, pushes with their pull, or all-reduces."""
        self.declined = 0
        self.broken = 0
        self.points: list[Point] = []
        """What was seen, in the order of time; of a long training every second one, or fewer."""
        self.reached: Point | None = None
        """The first one at which the target was reached."""
        self.stopped = ""
        """Why training ended before its time, naming the lost node; empty: it did not."""
        self.ended_s: float | None = None
        """When all steps were made, or training stopped; None: it goes on."""
        self.final: Vector = np.empty((0, 0))
        """The models of the nodes that are left at the end, [nodes, dimension]."""
        self._objective = objective
        self._batch = scenario.batch
        self._steps_total = scenario.steps_total
        self._target = scenario.objective.target
        self._stops = scenario.objective.stop_at_target
        self._every = scenario.nodes if self._stops else max(scenario.nodes, scenario.steps_total // LOOKS)
        self._next_look = self._every

    @property
    def complete(self) -> bool:
        """Tell whether all steps are made, or as many as it took to reach the target, if it ends there."""
        return self.steps >= self._steps_total or (self._stops and self.reached is not None)

    @property
    def look_is_due(self) -> bool:
        """Tell whether enough steps went by for `look`."""
        return self.steps >= self._next_look

    def look(self, now: float, models: Vector) -> None:
        """Measure the `models` of all live nodes, [nodes, dimension]."""
        self._next_look = self.steps + self._every
        loss = self._objective.loss(models.mean(axis=0))
        point = Point(now, self.steps * self._batch, loss, consensus_distance(models))
        if self.reached is None and loss <= self._target:
            self.reached = point
        if len(self.points) >= MAX_POINTS:
            del self.points[1::2]
        self.points.append(point)

    def end(self, now: float, models: Vector, stopped: str = "") -> None:
        """Close the account: all steps are made, or training stopped for the reason given."""
        self.ended_s, self.final, self.stopped = now, models.copy(), stopped
        if len(models) and not (self.points and self.points[-1].samples == self.steps * self._batch):
            self.look(now, models)


def consensus_distance(models: Vector) -> float:
    """Return how far models are from their mean, root mean square, relative to its norm; [nodes, dimension]."""
    mean = models.mean(axis=0)
    spread = math.sqrt(float(np.mean(np.sum((models - mean) ** 2, axis=1))))
    norm = float(np.linalg.norm(mean))
    if spread == 0.0:
        return 0.0
    return spread / norm if norm > 0 else math.inf

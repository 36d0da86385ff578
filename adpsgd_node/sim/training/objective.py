"""Minimize something whose gradients are noisy and whose optimum is known: a quadratic, for all nodes at once.

    f_i(x) = (x - o_i)' H (x - o_i) / 2        H diagonal, its values from 1 / condition to 1
    g_i(x) = H (x - o_i) + noise               o_i = optimum + own shift; the shifts of all nodes sum to zero

H is the same on every node, so the mean of all f_i is least at the mean of the o_i, and `loss` is how far above that
least value it is: 1 at the start, where all parameters are 0. That is least squares seen along its principal axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from adpsgd_node.sim.training.scenario import TrainingScenario

__all__ = ["Objective", "Vector"]

Vector = npt.NDArray[np.float64]

BLOCK = 16
"""Draws of noise made at once for a node."""


class Objective:
    """The losses and gradients of all nodes; a node's noise is the same under every algorithm."""

    def __init__(self, scenario: TrainingScenario) -> None:
        config, nodes = scenario.objective, scenario.nodes
        rng = np.random.default_rng([scenario.seed, 2])
        self.curvature: Vector = np.geomspace(1.0, 1.0 / config.condition, config.dimension)
        """The diagonal of H, [dimension]."""
        direction = rng.standard_normal(config.dimension)
        self.optimum: Vector = direction * np.sqrt(2.0 / np.sum(self.curvature * direction**2))
        """Where the loss is 0, [dimension]."""
        self.own_optimum: Vector = np.tile(self.optimum, (nodes, 1))
        """Where each node's own loss is least, [nodes, dimension]."""
        if config.skew:
            shift = rng.standard_normal((nodes, config.dimension))
            shift -= shift.mean(axis=0)
            self.own_optimum += shift * config.skew * np.linalg.norm(self.optimum) / np.sqrt(config.dimension)
        start_gradient = float(np.linalg.norm(self.curvature * self.optimum))
        self._deviation = config.noise * start_gradient / np.sqrt(config.dimension)
        self._random = [np.random.default_rng([scenario.seed, 3, node]) for node in range(nodes)]
        self._noise = np.zeros((nodes, BLOCK, config.dimension))
        self._used = [BLOCK] * nodes

    @property
    def start(self) -> Vector:
        """Where every node starts, [dimension]."""
        return np.zeros_like(self.optimum)

    def loss(self, parameters: Vector) -> float:
        """Return how far the loss of all data lies above its least value; 1 at the start."""
        return float(0.5 * np.sum(self.curvature * (parameters - self.optimum) ** 2))

    def gradient(self, node: int, parameters: Vector) -> Vector:
        """Return the noisy gradient of `node` at its `parameters`, [dimension]."""
        gradient: Vector = parameters - self.own_optimum[node]
        gradient *= self.curvature
        if self._deviation:
            gradient += self._next_noise(node)
        return gradient

    def gradients(self, nodes: Sequence[int], parameters: Vector) -> Vector:
        """Return the noisy gradients of `nodes`, [nodes, dimension]; `parameters`: a row for each, or one for all."""
        gradients: Vector = self.curvature * (parameters - self.own_optimum[np.asarray(nodes)])
        if self._deviation:
            gradients += self._next_noises(nodes)
        return gradients

    def _next_noises(self, nodes: Sequence[int]) -> Vector:
        used = {self._used[node] for node in nodes}
        if len(used) == 1 and (place := used.pop()) < BLOCK:  # in step, as rounds are: no need to go one by one
            for node in nodes:
                self._used[node] = place + 1
            noises: Vector = self._noise[np.asarray(nodes), place]
            return noises
        return np.array([self._next_noise(node) for node in nodes])

    def _next_noise(self, node: int) -> Vector:
        place = self._used[node]
        if place == BLOCK:
            noise = self._noise[node]
            self._random[node].standard_normal(out=noise)
            noise *= self._deviation
            place = 0
        self._used[node] = place + 1
        row: Vector = self._noise[node, place]
        return row

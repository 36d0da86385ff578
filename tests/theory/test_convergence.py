"""How far a number of updates gets, whoever makes them: noisy quadratics, trained by fleets of real nodes.

f(x) = sum_d h_d x_d^2 / 2 with h from 1/2 to 2; a stochastic gradient is h x + sigma xi, xi standard normal.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from theory.fleet import Fleet, gossip, sgd
from theory.training import Recursion, train

ELEMENTS = 256
CURVATURE = np.geomspace(0.5, 2.0, ELEMENTS)
ROUNDING = 1e-5
"""Largest distance allowed between the fleet and the recursion of the paper; some 1e-6 is what fp32 makes of it."""


@dataclass
class Run:
    """Some updates of a fleet that begins at 1 everywhere; workers take turns at random, each with its own noise."""

    nodes: int
    updates: int
    rate: float
    """Learning rate of each worker: one update moves the mean by rate / nodes."""
    noise: float
    topology: str
    watch_every: int = 0
    watched: list[float] = field(default_factory=list)
    """Squared gradient norms at the mean, every `watch_every` updates."""

    def train(self) -> Fleet:
        """Make all updates; what comes out must be what the paper's recursion gives."""
        rng = np.random.default_rng([self.nodes, self.updates])
        noise = self.noise * rng.standard_normal((self.updates, ELEMENTS))
        start = np.ones((self.nodes, ELEMENTS))
        fleet, paper = Fleet(start, sgd(self.rate)), Recursion(start, self.rate)

        def watch(update: int) -> None:
            if self.watch_every and update % self.watch_every == 0:
                self.watched.append(gradient_norm(fleet.mean()) ** 2)

        order = rng.integers(self.nodes, size=self.updates).tolist()
        workers = gossip(self.topology, self.nodes, seed=self.nodes)
        train(fleet, workers, order, lambda update, point: CURVATURE * point + noise[update], paper, watch)
        assert np.abs(fleet.views() - paper.models).max() < ROUNDING, "X_{k+1} = X_k W_k - gamma g(X^_k) does not hold"
        return fleet


def gradient_norm(point: np.ndarray) -> float:
    """Return |grad f(x)|."""
    return float(np.linalg.norm(CURVATURE * point))


def test_speedup_is_linear_when_the_learning_rate_grows_with_the_workers() -> None:
    """With gamma = n gamma_1, |grad f(mean)| after K updates in all depends on K alone, not on n: within 10 %.

    Source: Lian et al. 2018, convergence analysis, on linear speedup: gamma in proportion to n,
    and a bound that knows K and not n, once K is large enough. So n workers are n times as fast. Each model by
    itself is as good to 20 %, which takes averaging; and without the growing rate the same updates get far less far.
    """
    updates, rate, noise = 4096, 1 / 2048, 4.0
    alone = gradient_norm(Run(1, updates, rate, noise, "exponential").train().mean())
    assert alone < 0.2 * gradient_norm(np.ones(ELEMENTS)), "the run is long enough to tell"
    for nodes in (2, 8, 32):
        fleet = Run(nodes, updates, nodes * rate, noise, "exponential").train()
        assert abs(gradient_norm(fleet.mean()) / alone - 1) < 0.1, nodes
        each = np.sqrt(np.mean([gradient_norm(model) ** 2 for model in fleet.views()]))
        assert each < 1.2 * alone, nodes
    assert gradient_norm(Run(8, updates, rate, noise, "exponential").train().mean()) > 3 * alone


def test_average_squared_gradient_falls_as_one_over_the_root_of_the_updates() -> None:
    """sum_k |grad f(mean_k)|^2 / K = O(1 / sqrt(K)) with gamma ~ n / sqrt(K): slope -0.5 on a log-log scale, to 0.1.

    Source: Lian et al. 2018, convergence analysis, whose gamma is n / sqrt(K) but for constants once K is large.
    Here the distance from the start counts h / (2 c sqrt(K)) and the noise h c sigma^2 / (2 sqrt(K)) a dimension, for
    gamma = n c / sqrt(K): of equal weight with c = 1 / 2 and sigma = 2, and each of slope -0.5.
    """
    nodes, factor, noise = 4, 0.5, 2.0
    counts = [256, 512, 1024, 2048, 4096]
    averages = []
    for updates in counts:
        run = Run(nodes, updates, nodes * factor / updates**0.5, noise, "ring", watch_every=4)
        run.train()
        averages.append(np.mean(run.watched))
    slope = np.polyfit(np.log(counts), np.log(averages), 1)[0]
    assert abs(slope + 0.5) < 0.1

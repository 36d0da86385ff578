"""A slow node costs its own steps and nobody else's: policies and nodes on one virtual clock, counted exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from adpsgd_node.sim.clock import Clock
from theory.fleet import Fleet, Worker, gossip, sgd

NODES = 8
RATE = 2.0**-6
GRADIENT = 2.0**-4


class Race:
    """Nodes that step without end; node 0 takes `slowness` seconds a step, the others one."""

    def __init__(self, slowness: int, exchange_s: Callable[[int, int], float]) -> None:
        self.clock = Clock()
        self.fleet = Fleet(np.zeros((NODES, 16)), sgd(RATE))
        self.paper = np.zeros(NODES)
        """What each element must be: each step and each exchange, in the order in which they happened."""
        self.workers: list[Worker] = gossip("exponential", NODES, seed=slowness)
        self.steps = [0] * NODES
        self.completed = [0] * NODES
        """Exchanges that each node has begun and that came to their end."""
        self._step_s = [float(slowness)] + [1.0] * (NODES - 1)
        self._exchange_s = exchange_s
        for place in range(NODES):
            self._begin(place)

    def _begin(self, place: int) -> None:
        self.clock.after(self._step_s[place], self._step, place)

    def _step(self, place: int) -> None:
        self.fleet.nodes[place].step(np.full(16, GRADIENT))
        self.paper[place] -= RATE * GRADIENT
        self.steps[place] += 1
        idle = self.workers[place].partner is None
        self.workers[place].stepped(self.clock.now)  # refuses any action but an exchange beside the steps
        if idle:
            self._exchange(place)
        self._begin(place)

    def _exchange(self, place: int) -> None:
        partner = self.workers[place].partner
        if partner is not None:
            self.clock.after(self._exchange_s(place, partner), self._complete, place, partner)

    def _complete(self, place: int, partner: int) -> None:
        self.fleet.exchange(place, partner)
        self.paper[[place, partner]] = self.paper[[place, partner]].mean()
        self.completed[place] += 1
        self.workers[place].exchanged(self.clock.now)
        self._exchange(place)


@pytest.mark.parametrize("slowness", [2, 10, 100])
def test_throughput_with_a_straggler_is_n_minus_1_plus_1_over_s(slowness: int) -> None:
    """Steps a second of all nodes: n - 1 + 1 / s, where whoever waits for all gets n / s; each step with its exchange.

    Source: Lian et al. 2018 (the algorithm is wait-free); the number follows by counting, which is done over
    a whole number of the straggler's steps. The straggler answers others beside its own step, so none waits for it.
    """
    seconds = 2 * slowness
    race = Race(slowness, lambda place, partner: 0.25)
    race.clock.run_until(seconds)
    assert race.steps == [seconds // slowness] + [seconds] * (NODES - 1)
    assert sum(race.steps) * slowness == seconds * ((NODES - 1) * slowness + 1)
    race.clock.run(0.5)
    assert race.completed == race.steps, "one exchange a step, with the straggler as with the others"
    assert np.allclose(race.fleet.views(), race.paper[:, None], rtol=1e-4), "each step and each exchange counts"


@pytest.mark.parametrize("slowness", [2, 10, 100])
def test_a_slow_link_takes_no_step_from_anybody(slowness: int) -> None:
    """Steps a second of all nodes: n - 1 + 1 / s, though exchanges with the straggler are slower than its steps.

    Source: as above: averaging runs beside the gradient, so what is slow to average is averaged less often.
    """
    seconds = 2 * slowness
    race = Race(slowness, lambda place, partner: 1.5 * slowness if 0 in (place, partner) else 0.25)
    race.clock.run_until(seconds)
    assert race.steps == [seconds // slowness] + [seconds] * (NODES - 1)
    assert all(worker.started <= steps for worker, steps in zip(race.workers, race.steps, strict=True))
    assert sum(race.completed) < sum(race.steps)
    assert np.allclose(race.fleet.views(), race.paper[:, None], rtol=1e-4)


@pytest.mark.parametrize("slowness", [2, 10, 100])
def test_each_step_moves_the_mean_by_the_same_whoever_makes_it(slowness: int) -> None:
    """mean_K = mean_0 - (gamma / n) sum_k g_k, as 1^T W_k = 1^T.

    Source: Lian et al. 2018: the analysis follows the mean of the models.
    """
    race = Race(slowness, lambda place, partner: 0.25)
    race.clock.run_until(2 * slowness)
    assert np.allclose(race.fleet.mean(), -RATE * GRADIENT * sum(race.steps) / NODES, rtol=1e-5)


def test_a_straggler_is_taken_along_by_the_others() -> None:
    """x_0 is near the mean of all, though its own steps are 1 % of the others': it trails by the steps of a few rounds.

    Source: Lian et al. 2018, convergence analysis: the models stay within a bound of their mean that the spectral gap
    sets. A node takes part in an exchange about twice a second here, and each takes half of what it is behind.
    """
    race = Race(100, lambda place, partner: 0.25)
    race.clock.run_until(200)
    travelled = np.abs(race.fleet.mean()).max()
    behind = np.abs(race.fleet.views()[0] - race.fleet.mean()).max()
    assert behind < 0.1 * travelled

"""A2CiD2 on the product's own planes and folds: agreement comes faster on a ring, and the mean stays."""

from __future__ import annotations

import random

import numpy as np
import pytest
from numpy.typing import NDArray

from adpsgd_node.core.topology import topology_named
from adpsgd_node.core.topology.acceleration import LAG, mixed_part
from adpsgd_node.daemon.acceleration import Momentum, momentum_at
from adpsgd_node.trainer.acceleration import Acceleration
from theory.fleet import Fleet
from theory.graph import names_of, neighbors_of

Matrix = NDArray[np.float64]

ELEMENTS = 24
STEPS = 40


def spread(models: Matrix) -> float:
    return float(((models - models.mean(axis=0)) ** 2).sum())


def starts(count: int) -> Matrix:
    return np.random.default_rng(3).standard_normal((count, ELEMENTS))


def momentum_on(topology: str, count: int) -> list[Momentum]:
    names = names_of(count)
    return [momentum_at(topology_named(topology), names, own, ()) for own in names]


def on_real_planes(topology: str, count: int, *, accelerated: bool) -> tuple[Matrix, Matrix]:
    """Gossip with one exchange started per node and step; return the models before and after."""
    fleet, rng, neighbors = Fleet(starts(count)), random.Random(5), neighbors_of(topology, count)
    before = fleet.views()
    folds = []
    for node, momentum in zip(fleet.nodes, momentum_on(topology, count), strict=True):
        header = node.plane.header
        header.mixing_rate, header.momentum_share = momentum.mixing_rate, momentum.momentum_share
        header.exchanges_per_unit = momentum.exchanges_per_unit
        replica = node.bound.replica
        folds.append(Acceleration(replica, header).fold if accelerated else replica.before_step)
    for _ in range(STEPS):
        for one in rng.sample(range(count), count):
            other = rng.choice(neighbors[one])
            fleet.exchange(one, other)
            for place in (one, other):
                fleet.nodes[place].plane.header.exchanges += 1
        for fold in folds:
            fold()
    return before, fleet.views()


@pytest.mark.parametrize("count", [12, 24])
def test_on_a_ring_models_agree_faster_with_momentum(count: int) -> None:
    """Plain gossip needs a time of order chi1 (~ n^2 on a ring), A2CiD2 one of sqrt(chi1 chi2) (~ n).

    Source: Nabli, Belilovsky, Oyallon 2023, arXiv 2306.08289, section 3.
    """
    left = {}
    for accelerated in (False, True):
        before, after = on_real_planes("ring", count, accelerated=accelerated)
        left[accelerated] = spread(after) / spread(before)
    assert left[True] < 0.5 * left[False]


def test_the_mean_of_all_models_comes_back_to_where_it_was() -> None:
    before, after = on_real_planes("ring", 12, accelerated=True)
    # Nodes mix by their own exchanges, so the mean may be off while z is not used up yet, by no more than that.
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=0.05)


def spread_of_model(momenta: list[Momentum], steps: int, lag: int, noise: float) -> float:
    """Simulate a ring in plain numpy: what exchanges bring reaches a node's own copy `lag` steps late."""
    count, rng = len(momenta), np.random.default_rng(2)
    neighbors = neighbors_of("ring", count)
    x, z = starts(count), np.zeros((count, ELEMENTS))
    inbox: list[Matrix] = [np.zeros_like(x) for _ in range(lag + 1)]
    exchanges: list[Matrix] = [np.zeros(count) for _ in range(lag + 1)]
    for _ in range(steps):
        for one in rng.permutation(count):
            other = neighbors[one][rng.integers(len(neighbors[one]))]
            views = [x[place] + sum(each[place] for each in inbox) for place in (one, other)]
            delta = (views[1] - views[0]) / 2
            inbox[-1][one] += delta
            inbox[-1][other] -= delta
            exchanges[-1][[one, other]] += 1
        brought, passed = inbox.pop(0), exchanges.pop(0)
        inbox.append(np.zeros_like(x))
        exchanges.append(np.zeros(count))
        for place, momentum in enumerate(momenta):
            x[place] += brought[place]
            z[place] += (momentum.momentum_share - 1) * brought[place]
            part = mixed_part(momentum.mixing_rate, min(1.0, passed[place] / momentum.exchanges_per_unit))
            x[place] += part * z[place]
            z[place] *= 1 - 2 * part
        x += noise * rng.standard_normal(x.shape)
    return spread(x + sum(inbox))


def test_late_folds_are_withstood_because_eta_is_made_for_lower_rates() -> None:
    """The paper has no lag; with its eta (LAG = 1), three steps of lag make a ring of 48 diverge."""
    ours = momentum_on("ring", 48)
    paper = [Momentum(one.mixing_rate / LAG, one.momentum_share, one.exchanges_per_unit) for one in ours]
    plain = [Momentum(0.0, 1.0, 1.0) for _ in ours]
    with_ours, with_paper, without = (spread_of_model(each, 150, 3, 0.1) for each in (ours, paper, plain))
    assert with_ours < 3 * without
    assert with_paper > 1e3 * without

"""How fast exchanges alone bring the models together, as an exact expectation over what may be drawn."""

from __future__ import annotations

import random

import numpy as np
import pytest

from theory.fleet import Fleet, worker_at
from theory.graph import edges_of, laplacian_of, neighbors_of, slowest_mode

SCALE = 1000.0
"""Of the vectors: the numbers are then far from the smallest that fp32 knows."""

GRAPHS = [("ring", 8), ("ring", 9), ("exponential", 16), ("hypercube", 16), ("complete", 8), ("star", 7), ("path", 6)]


class Draw(random.Random):
    """Draws the same place every time."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self._place = place

    def randrange(self, *bounds: int) -> int:
        assert self._place in range(*bounds)
        return self._place


def spread_after(mode: np.ndarray, one: int, other: int) -> float:
    """Return sum |x_i - mean|^2 once two of the nodes that hold `mode`, one value each, have averaged."""
    pair = Fleet(SCALE * mode[[one, other], None])
    pair.exchange(0, 1)
    models = mode.copy()
    models[[one, other]] = pair.views()[:, 0] / SCALE
    return float(((models - models.mean()) ** 2).sum())


def drawn_partner(topology: str, count: int, place: int, draw: int) -> int:
    """Return with whom the policy of a node exchanges after a step, by what it draws."""
    worker = worker_at(topology, count, place, Draw(draw))
    worker.stepped()
    assert worker.partner is not None
    return worker.partner


@pytest.mark.parametrize(("topology", "count"), GRAPHS)
def test_one_event_contracts_the_slowest_mode_by_lambda_2_over_twice_the_edges(topology: str, count: int) -> None:
    """E |x' - mean|^2 = rho |x - mean|^2 with rho = 1 - lambda_2(L) / (2 |E|), one edge drawn uniformly.

    Source: Boyd, Ghosh, Prabhakar, Shah 2006, "Randomized gossip algorithms", theorem 3 and its proof: rho =
    lambda_2(E[W]), and here E[W] = I - L / (2 |E|). Equality holds from the eigenvector of lambda_2. The expectation is
    taken over every edge, not sampled. What is compared is 1 - rho: in rho itself a wrong weight would hardly show.
    """
    edges = edges_of(topology, count)
    connectivity, mode = slowest_mode(laplacian_of(topology, count))
    expected = np.mean([spread_after(mode, one, other) for one, other in edges])
    assert 1 - expected == pytest.approx(connectivity / (2 * len(edges)), rel=1e-4)


@pytest.mark.parametrize(("topology", "count"), GRAPHS)
def test_nodes_that_draw_a_neighbor_weigh_each_edge_by_its_ends_degrees(topology: str, count: int) -> None:
    """rho = 1 - lambda_2(L_p) / 2 with L_p weighing edge ij by p_ij = (1 / d_i + 1 / d_j) / n.

    Source: Boyd et al. 2006, theorem 3: a node i that wakes draws j with P_ij, and E[W] = I - (D - P - P^T) / (2 n)
    with D = diag(sum_j P_ij + P_ji). AD-PSGD's policy draws so: whoever has stepped (each as often here) takes one of
    its neighbors. It is asked for every draw it can make. On a regular graph this is the uniform edge of the test
    above.
    """
    neighbors = neighbors_of(topology, count)
    chance = dict.fromkeys(edges_of(topology, count), 0.0)
    for place, others in enumerate(neighbors):
        for draw in range(len(others)):
            partner = drawn_partner(topology, count, place, draw)
            chance[min(place, partner), max(place, partner)] += 1 / (count * len(others))
    for (one, other), weight in chance.items():
        assert weight == pytest.approx((1 / len(neighbors[one]) + 1 / len(neighbors[other])) / count)
    laplacian = np.zeros((count, count))
    for (one, other), weight in chance.items():
        laplacian[[one, other], [one, other]] += weight
        laplacian[[one, other], [other, one]] -= weight
    connectivity, mode = slowest_mode(laplacian)
    expected = sum(weight * spread_after(mode, one, other) for (one, other), weight in chance.items())
    assert 1 - expected == pytest.approx(connectivity / 2, rel=1e-4)


def test_lambda_2_of_the_graphs_is_what_is_known_of_them() -> None:
    """Ring 2 - 2 cos(2 pi / n), hypercube 2, complete n, star 1, path 2 - 2 cos(pi / n).

    Source: Fiedler 1973, "Algebraic connectivity of graphs". So the topologies are the graphs that they are named for.
    """
    known = {
        ("ring", 8): 2 - 2 * np.cos(2 * np.pi / 8),
        ("ring", 9): 2 - 2 * np.cos(2 * np.pi / 9),
        ("hypercube", 16): 2.0,
        ("complete", 8): 8.0,
        ("star", 7): 1.0,
        ("path", 6): 2 - 2 * np.cos(np.pi / 6),
    }
    for (topology, count), connectivity in known.items():
        assert slowest_mode(laplacian_of(topology, count))[0] == pytest.approx(connectivity)

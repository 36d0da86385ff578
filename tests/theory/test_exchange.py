"""What one exchange does to the models: the facts on which every convergence proof of gossip rests."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from theory.fleet import Fleet
from theory.training import pair_matrix

ELEMENTS = 600
"""Three chunks of the fleet's planes, the last one short."""


def spread(models: np.ndarray) -> float:
    """Return the sum of |x_i - mean|^2 over all nodes."""
    return float(((models - models.mean(axis=0)) ** 2).sum())


@pytest.mark.parametrize("count", [2, 5, 8])
def test_one_exchange_lowers_the_spread_by_exactly_half_the_squared_distance(count: int) -> None:
    """sum |x_i' - mean|^2 = sum |x_i - mean|^2 - |x_i - x_j|^2 / 2, since |a|^2 + |b|^2 = (|a + b|^2 + |a - b|^2) / 2.

    Source: Boyd, Ghosh, Prabhakar, Shah 2006, "Randomized gossip algorithms", proof of theorem 3: W = I - (e_i - e_j)
    (e_i - e_j)^T / 2 is a projection. With any weight w but 1/2 the factor is 2 w (1 - w), which is less. Values are
    whole multiples of the count of nodes, so that every sum below is exact and equality is asked for bit by bit.
    """
    rng = np.random.default_rng(count)
    fleet = Fleet(count * rng.integers(-64, 64, (count, ELEMENTS)).astype(np.float64))
    for one, other in [(0, 1), (1, 0), (count - 1, 0)]:
        before = fleet.views()
        fleet.exchange(one, other)
        distance_squared = float(((before[one] - before[other]) ** 2).sum())
        lowered = spread(count * before) - spread(count * fleet.views())  # times the count: then the mean is whole too
        assert lowered == count**2 * distance_squared / 2


def test_an_exchange_is_the_projection_of_two_nodes_on_their_mean() -> None:
    """W = I - (e_i - e_j)(e_i - e_j)^T / 2: symmetric, W 1 = 1, 1^T W = 1^T, W >= 0 and W^2 = W.

    Source: Lian et al. 2018, assumptions (doubly stochastic averaging); Boyd et al. 2006, proof of theorem
    3. The matrix is read off the real exchange: node i begins with the unit vector e_i, so the views are W afterwards.
    """
    count = 16
    for one, other in itertools.permutations(range(0, count, 5), 2):
        fleet = Fleet(np.eye(count))
        fleet.exchange(one, other)
        matrix = fleet.views()
        assert np.array_equal(matrix, pair_matrix(count, one, other))
        assert np.array_equal(matrix, matrix.T)
        assert np.array_equal(matrix.sum(axis=0), np.ones(count))
        assert np.array_equal(matrix.sum(axis=1), np.ones(count))
        assert (matrix >= 0).all()
        fleet.exchange(one, other)
        assert np.array_equal(fleet.views(), matrix)


def test_the_two_deltas_cancel_bit_by_bit_whatever_the_values() -> None:
    """1^T W = 1^T: x_i' + x_j' = x_i + x_j, so no exchange moves the mean of the models.

    Source: Lian et al. 2018, assumptions (the columns of W_k sum to 1). Here it holds exactly in fp32, and
    each delta is half the difference of what was sent, rounded once.
    """
    rng = np.random.default_rng(3)
    start = (rng.standard_normal((2, ELEMENTS)) * 10.0 ** rng.integers(-6, 6, (2, ELEMENTS))).astype(np.float32)
    fleet = Fleet(start.astype(np.float64))
    fleet.exchange(0, 1)
    first, second = (node.plane.inbox[:ELEMENTS] for node in fleet.nodes)
    assert np.array_equal(first, -second)
    assert np.array_equal(first, (start[1] - start[0]) / np.float32(2))

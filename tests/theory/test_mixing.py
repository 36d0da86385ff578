"""What the weights of a synchronous round must be for every node to come to the mean."""

from __future__ import annotations

import numpy as np
import pytest

from adpsgd_node.core.topology import metropolis_weights
from theory.fleet import Fleet
from theory.graph import edges_of, laplacian_of, names_of, topology_over

KINDS = ["ring", "exponential", "hypercube", "complete", "star", "path"]
COUNTS = [2, 3, 5, 8, 12, 16]


def mixing_matrix(kind: str, count: int) -> np.ndarray:
    """Put together the weights that each node works out for itself."""
    names, topology = names_of(count), topology_over(kind, count)
    matrix = np.zeros((count, count))
    for place, name in enumerate(names):
        for other, weight in metropolis_weights(topology, names, name).items():
            matrix[place, names.index(other)] = weight
    return matrix


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_metropolis_weights_are_doubly_stochastic_and_keep_a_share_for_oneself(kind: str, count: int) -> None:
    """w_ij = 1 / (1 + max(d_i, d_j)), w_ii = 1 - sum_j w_ij: W = W^T, W 1 = 1, W >= 0 and w_ii > 0; 1^T W x = 1^T x.

    Source: Xiao, Boyd, Lall 2005, "A scheme for robust distributed sensor fusion based on average consensus", the
    Metropolis weights; Lian et al. 2017 (D-PSGD, arXiv 1705.09056) asks for such a W.
    """
    matrix = mixing_matrix(kind, count)
    laplacian = laplacian_of(kind, count)
    assert np.array_equal(matrix, matrix.T)
    assert np.allclose(matrix.sum(axis=0), 1.0, atol=1e-12)
    assert np.allclose(matrix.sum(axis=1), 1.0, atol=1e-12)
    assert np.array_equal(matrix[~np.eye(count, dtype=bool)] > 0, laplacian[~np.eye(count, dtype=bool)] < 0)
    assert (np.diag(matrix) >= 1 / (1 + np.diag(laplacian)) - 1e-12).all(), "as every w_ij <= 1 / (1 + d_i)"
    values = np.random.default_rng(count).standard_normal(count)
    assert (matrix @ values).sum() == pytest.approx(values.sum())


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_rounds_of_metropolis_weights_bring_every_node_to_the_mean(kind: str, count: int) -> None:
    """max(|lambda_2(W)|, |lambda_n(W)|) < 1, so W^k x tends to the mean on any connected graph, a bipartite one too.

    Source: Xiao, Boyd 2004, "Fast linear iterations for distributed averaging", theorem 1; Lian et al. 2017,
    assumptions (spectral gap). Without the 1 in the weights an even ring has lambda_n = -1: its halves would swap for
    ever.
    """
    matrix = mixing_matrix(kind, count)
    values = np.linalg.eigvalsh(matrix)
    assert values[-1] == pytest.approx(1.0)
    assert max(abs(values[:-1])) < 1 - 1e-3
    start = np.random.default_rng(count).standard_normal(count)
    assert np.allclose(np.linalg.matrix_power(matrix, 2000) @ start, start.mean(), atol=1e-3)


def test_on_a_complete_graph_one_round_is_the_mean_of_all() -> None:
    """w_ij = 1 / n for all i and j, as d = n - 1 everywhere: D-PSGD is then AllReduce-SGD.

    Source: Lian et al. 2017, algorithm 1 with W = 1 1^T / n.
    """
    for count in COUNTS:
        assert np.allclose(mixing_matrix("complete", count), 1 / count, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_of_exchanges_from_frozen_models_is_the_mixing_matrix(kind: str) -> None:
    """X' = W X: each edge moves both ends by w_ij (x_j - x_i), all from the models as they stood before the round.

    Source: Lian et al. 2017, algorithm 1. An exchange moves both sides by half the difference, so it is asked for the
    share 2 w_ij of that. Folded by the next step, as D-PSGD's trainer does.
    """
    count = 8
    matrix = mixing_matrix(kind, count)
    start = np.random.default_rng(8).standard_normal((count, 600))
    fleet = Fleet(start)
    for one, other in edges_of(kind, count):
        fleet.exchange(one, other, share=2 * matrix[one, other], frozen=True)
    for node in fleet.nodes:
        node.step(np.zeros(600))
    assert np.allclose([node.seen() for node in fleet.nodes], matrix @ start, atol=1e-5)

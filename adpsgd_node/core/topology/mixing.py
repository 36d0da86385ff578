"""Weigh the members of a synchronous average so that nobody's share grows or shrinks, on any graph."""

from __future__ import annotations

from collections.abc import Sequence

from adpsgd_node.core.topology.contract import Topology

__all__ = ["metropolis_weight", "metropolis_weights"]


def metropolis_weight(own_degree: int, other_degree: int) -> float:
    """Return the weight that two neighbors give each other: w_ij = 1 / (1 + max(degree_i, degree_j)).

    Each knows it from the two degrees alone, and both get the same: the matrix of these weights is symmetric, with rows
    that sum to 1, hence doubly stochastic, and the mean of all members is kept. The 1 leaves every member a share in
    its own average; without it, members of an even ring would only ever swap places. (Xiao, Boyd, Lall 2005, "A scheme
    for robust distributed sensor fusion based on average consensus".)
    """
    return 1.0 / (1 + max(own_degree, other_degree))


def metropolis_weights(topology: Topology, names: Sequence[str], own: str) -> dict[str, float]:
    """Return the weights with which `own` averages itself and its neighbors; they sum to 1.

    names: the sorted live names.
    """
    neighbors = topology.neighbors(names, own)
    degree = len(neighbors)
    weights = {other: metropolis_weight(degree, len(topology.neighbors(names, other))) for other in neighbors}
    return {own: 1.0 - sum(weights.values()), **weights}

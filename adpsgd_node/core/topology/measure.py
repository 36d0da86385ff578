"""Measure a topology: how far apart its members are, and how much each weighs in an average."""

from __future__ import annotations

from collections.abc import Sequence

from adpsgd_node.core.topology.contract import Topology

__all__ = ["diameter", "diameter_bound", "metropolis_weights"]


def diameter(topology: Topology, names: Sequence[str] | int) -> int:
    """Count the hops between the two members farthest apart (breadth-first from each; 0 for a single one).

    `names` are the sorted live names; a number stands for so many members, where only their places matter.
    """
    if isinstance(names, int):
        names = [f"{place:09d}" for place in range(names)]
    return max((_eccentricity(topology, names, name) for name in names), default=0)


def diameter_bound(topology: Topology, names: Sequence[str], own: str) -> int:
    """Bound the diameter from above by twice the hops to the member farthest from `own`; a single search."""
    return min(2 * _eccentricity(topology, names, own), max(0, len(names) - 1))


def metropolis_weights(topology: Topology, names: Sequence[str], own: str) -> dict[str, float]:
    """Return the weights with which `own` averages itself and its neighbors; they sum to 1.

    w_ij = 1 / (1 + max(degree_i, degree_j)): symmetric, hence doubly stochastic on any graph (Xiao, Boyd 2004).
    """
    neighbors = topology.neighbors(names, own)
    degree = len(neighbors)
    weights = {other: 1.0 / (1 + max(degree, len(topology.neighbors(names, other)))) for other in neighbors}
    return {own: 1.0 - sum(weights.values()), **weights}


def _eccentricity(topology: Topology, names: Sequence[str], start: str) -> int:
    seen = {start}
    frontier = [start]
    hops = 0
    while len(seen) < len(names):
        frontier = [other for name in frontier for other in topology.neighbors(names, name) if other not in seen]
        assert frontier, f"the {topology.name} topology of {len(names)} members is not connected"
        seen.update(frontier)
        hops += 1
    return hops

"""The product's topologies as matrices."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from adpsgd_node.core.topology import Topology, topology_named

__all__ = ["edges_of", "laplacian_of", "names_of", "neighbors_of", "slowest_mode", "topology_over"]

Matrix = NDArray[np.float64]


def names_of(count: int) -> list[str]:
    """Name `count` members, in order."""
    return [f"n{place:03d}" for place in range(count)]


def topology_over(kind: str, count: int) -> Topology:
    """Make a topology of that name for `count` members; `star` and `path` are custom ones, whose degrees differ."""
    names = names_of(count)
    if kind == "star":
        return topology_named("custom", ",".join(f"{names[0]}:{name}" for name in names[1:]))
    if kind == "path":
        return topology_named("custom", ",".join(f"{one}:{other}" for one, other in itertools.pairwise(names)))
    return topology_named(kind)


def neighbors_of(kind: str, count: int) -> list[tuple[int, ...]]:
    """List the neighbors of each member by their places."""
    names, topology = names_of(count), topology_over(kind, count)
    return [tuple(names.index(other) for other in topology.neighbors(names, name)) for name in names]


def edges_of(kind: str, count: int) -> list[tuple[int, int]]:
    """List each edge once."""
    return [(one, other) for one, others in enumerate(neighbors_of(kind, count)) for other in others if one < other]


def laplacian_of(kind: str, count: int) -> Matrix:
    """Return L = D - A: the degrees on the diagonal, -1 for each edge."""
    laplacian = np.zeros((count, count))
    for one, other in edges_of(kind, count):
        laplacian[[one, other], [one, other]] += 1
        laplacian[[one, other], [other, one]] -= 1
    return laplacian


def slowest_mode(laplacian: Matrix) -> tuple[float, Matrix]:
    """Return lambda_2, the smallest eigenvalue but for the 0 of a connected graph, and its eigenvector."""
    values, vectors = np.linalg.eigh(laplacian)
    assert values[1] > 1e-9, "the graph is not connected"
    return float(values[1]), vectors[:, 1]

"""Judge when a node's model and its neighbors' are the same within the tolerance, without a coordinator.

While nobody steps, every exchange measures the distance between two models just before they meet. A node that has moved
since is farther at most by how far it moved (triangle inequality), so with an odometer over its own moves

    |x_i - x_j| <= distance at their last exchange + own moves since + the other's moves since.

Each side answers for its own moves: an edge is close when `distance + own moves <= tolerance / (2 * diameter)`. When
every node finds all its edges close, neighbors are within tolerance / diameter and any two nodes within the tolerance.
An averaging
by itself never leaves the convex hull of the models, so what has come this close stays so; exchanges that overlap may
leave it by a fraction of the distance that is left, for which the factor 2 makes room.

All distances are relative to the norm of the own model.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["Agreement"]


@dataclass(frozen=True, slots=True)
class _Edge:
    distance: float
    odometer: float


class Agreement:
    """What one node knows of its distance to each neighbor since it stopped stepping."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._odometer = 0.0
        self._edges: dict[str, _Edge] = {}

    def reset(self) -> None:
        """Forget everything: the node stepped, or the others were still stepping."""
        self._edges.clear()
        self._odometer = 0.0

    def exchanged(self, peer: str, distance: float, *, complete: bool) -> None:
        """Note one exchange: `distance` before it (relative); both moved by half of it, to the same point."""
        if not math.isfinite(distance):
            self.reset()  # one of the two was all zero: nothing relative can be said
            return
        self._odometer += distance / 2
        if complete:
            # Measured before the move: after it the two stood at the same point.
            self._edges[peer] = _Edge(distance, self._odometer)
        else:
            self._edges.pop(peer, None)

    def bound(self, peer: str) -> float:
        """Return how far `peer` may be as far as this node can tell; infinite before a complete exchange."""
        edge = self._edges.get(peer)
        return float("inf") if edge is None else edge.distance + self._odometer - edge.odometer

    def far(self, neighbors: Collection[str], diameter: int) -> list[str]:
        """Return the neighbors that are not known to be close."""
        limit = self._tolerance / (2 * max(1, diameter))
        return sorted(name for name in neighbors if not self.bound(name) <= limit)

    def widest(self, neighbors: Collection[str]) -> float:
        """Return the largest bound over `neighbors`; 0 without any."""
        return max((self.bound(name) for name in neighbors), default=0.0)

"""Measure a topology: how far apart its members are."""

from __future__ import annotations

from collections.abc import Sequence

from adpsgd_node.core.topology.contract import Topology

__all__ = ["diameter", "diameter_bound"]


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

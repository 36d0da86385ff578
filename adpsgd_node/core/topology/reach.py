"""Find out whom a node can come to agree with when some members can only call: two of these never exchange."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from adpsgd_node.core.topology.contract import Topology
from adpsgd_node.core.topology.measure import diameter_bound

__all__ = ["Reach", "reach"]


@dataclass(frozen=True, slots=True)
class Reach:
    """What is left of the topology around one node once the edges are gone over which nobody can call."""

    neighbors: tuple[str, ...]
    """Sorted; each can call this node, or be called by it."""
    diameter_bound: int
    """No two members that hang together are farther apart."""
    cut_off: tuple[str, ...]
    """Members to which no way leads over the edges that are left, sorted."""


def reach(topology: Topology, names: Sequence[str], own: str, outbound_only: Collection[str]) -> Reach:
    """Look at `topology` over the sorted `names` from `own`; those in `outbound_only` can call but not be called."""
    inward = set(outbound_only).intersection(names)
    if len(inward) < 2:  # one alone meets only members that it can call
        return Reach(topology.neighbors(names, own), diameter_bound(topology, names, own), ())

    def passable(name: str) -> list[str]:
        others = topology.neighbors(names, name)
        return [other for other in others if not (name in inward and other in inward)]

    seen, frontier, hops = {own}, [own], 0
    while frontier and len(seen) < len(names):
        following: list[str] = []
        for name in frontier:
            fresh = [other for other in passable(name) if other not in seen]
            seen.update(fresh)
            following += fresh
            if len(seen) == len(names):
                break
        hops += bool(following)
        frontier = following
    cut_off = tuple(name for name in names if name not in seen)
    return Reach(tuple(passable(own)), min(2 * hops, max(0, len(names) - 1)), cut_off)

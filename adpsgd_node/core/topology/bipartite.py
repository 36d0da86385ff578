"""Split members into those that start exchanges and those that answer them, so that every edge joins the two kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adpsgd_node.core.topology.contract import Topology

__all__ = ["Split", "split"]


@dataclass(frozen=True, slots=True)
class Split:
    """The two sides of a graph; where it has none, an odd cycle shows why."""

    active: frozenset[str]
    """Those that start exchanges; empty where there are no sides."""
    odd_cycle: tuple[str, ...]
    """Members each joined with the next, and the last with the first; an odd number of them, or none."""


def split(topology: Topology, names: Sequence[str]) -> Split:
    """Color the graph over the sorted `names` with two colors, by a breadth-first search.

    The larger side is the active one, as one that answers can serve many and one that starts is in one exchange at a
    time; of two equal sides the one with the first name. So all that know the same members find the same sides.
    A graph has two sides if, and only if, it has no cycle of odd length.
    """
    parents: dict[str, str] = {}
    sides: tuple[set[str], set[str]] = (set(), set())
    for start in names:  # one is enough where the graph is connected
        if start in sides[0] or start in sides[1]:
            continue
        own, other = 0, 1
        sides[own].add(start)
        frontier = [start]
        while frontier:
            following: list[str] = []
            for name in frontier:
                for neighbor in topology.neighbors(names, name):
                    if neighbor in sides[own]:
                        return Split(frozenset(), _cycle(parents, name, neighbor))
                    if neighbor not in sides[other]:
                        sides[other].add(neighbor)
                        parents[neighbor] = name
                        following.append(neighbor)
            frontier = following
            own, other = other, own
    return Split(frozenset(sides[1] if len(sides[1]) > len(sides[0]) else sides[0]), ())


def _cycle(parents: dict[str, str], one: str, other: str) -> tuple[str, ...]:
    """Close the cycle of two neighbors of one color over the ways that led to them: they lie equally deep."""
    there, back = [one], [other]
    while there[-1] != back[-1]:
        there.append(parents[there[-1]])
        back.append(parents[back[-1]])
    return (*there, *reversed(back[:-1]))

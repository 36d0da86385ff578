"""Follow a list of edges that the user wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adpsgd_node.core.topology.contract import Topology
from adpsgd_node.errors import ConfigError
from adpsgd_node.ids import valid_name

__all__ = ["MAX_EDGES", "Custom"]

MAX_EDGES = 65536
"""Most edges a list may have."""


class Custom(Topology):
    """A graph given as `a:b,b:c`: undirected edges between node names.

    Members named in the list that are not live are stepped over: whoever they joined become neighbors. So the graph of
    the live members stays connected through any deaths, is the same on every node, and is the listed one when all live.
    """

    name = "custom"

    def __init__(self, edges: str) -> None:
        self._adjacent = _parse(edges)
        _require_connected(self._adjacent)

    @property
    def names(self) -> tuple[str, ...]:
        """All names in the list, sorted."""
        return tuple(sorted(self._adjacent))

    def placed(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in self._adjacent)

    def neighbors(self, names: Sequence[str], own: str) -> tuple[str, ...]:
        if own not in self._adjacent:
            raise ConfigError(
                f"node {own!r} is not in the edge list, which names {', '.join(self.names)}: "
                f"add an edge such as {self.names[0]}:{own}, or give the node one of these names."
            )
        live = set(names)
        seen = {own}
        frontier = [own]
        found = set()
        while frontier:
            for other in self._adjacent[frontier.pop()] - seen:
                seen.add(other)
                if other in live:
                    found.add(other)
                else:
                    frontier.append(other)
        return tuple(sorted(found))


def _parse(edges: str) -> Mapping[str, frozenset[str]]:
    adjacent: dict[str, set[str]] = {}
    pairs = [pair.strip() for pair in edges.replace("\n", ",").split(",") if pair.strip()]
    if not pairs:
        raise ConfigError("the edge list is empty: write it as a:b,b:c.")
    if len(pairs) > MAX_EDGES:
        raise ConfigError(f"the edge list has {len(pairs)} edges, more than {MAX_EDGES}: use a named topology.")
    for pair in pairs:
        ends = [end.strip() for end in pair.split(":")]
        if len(ends) != 2 or not all(valid_name(end) for end in ends):
            raise ConfigError(f"{pair!r} in the edge list is no edge: write two node names as a:b.")
        first, second = ends
        if first == second:
            raise ConfigError(f"the edge {pair!r} joins {first!r} with itself: remove it.")
        adjacent.setdefault(first, set()).add(second)
        adjacent.setdefault(second, set()).add(first)
    return {name: frozenset(others) for name, others in adjacent.items()}


def _require_connected(adjacent: Mapping[str, frozenset[str]]) -> None:
    start = min(adjacent)
    seen = {start}
    frontier = [start]
    while frontier:
        new = adjacent[frontier.pop()] - seen
        seen |= new
        frontier.extend(new)
    apart = sorted(set(adjacent) - seen)
    if apart:
        raise ConfigError(
            f"the edge list falls apart: no path leads from {start!r} to {', '.join(map(repr, apart))}; "
            f"add an edge such as {start}:{apart[0]}."
        )

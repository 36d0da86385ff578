"""Place the members on a ring."""

from __future__ import annotations

from collections.abc import Iterable

from adpsgd_node.core.topology.contract import IndexedTopology

__all__ = ["Ring"]


class Ring(IndexedTopology):
    """Each member has the one before and the one after it as neighbors."""

    name = "ring"

    def adjacent(self, index: int, count: int) -> Iterable[int]:
        return ((index - 1) % count, (index + 1) % count)

"""Join every member with every other."""

from __future__ import annotations

from collections.abc import Iterable

from adpsgd_node.core.topology.contract import IndexedTopology

__all__ = ["Complete"]


class Complete(IndexedTopology):
    """Each member has all others as neighbors."""

    name = "complete"

    def adjacent(self, index: int, count: int) -> Iterable[int]:  # noqa: ARG002
        return range(count)

"""Join members whose places differ in one bit."""

from __future__ import annotations

from collections.abc import Iterable

from adpsgd_node.core.topology.contract import IndexedTopology

__all__ = ["Hypercube"]


class Hypercube(IndexedTopology):
    """Each member has as neighbors those whose place differs from its own in exactly one bit.

    When the count is no power of two, the places that do not exist are left out. What remains is connected: clearing a
    bit only makes a place smaller, so the way from i to j over `i & j` exists, and takes as many hops as they differ
    in bits: the diameter is at most ceil(log2(count)). A member alone in its half of the cube has few neighbors.
    """

    name = "hypercube"

    def adjacent(self, index: int, count: int) -> Iterable[int]:
        bit = 1
        while bit < count:
            if index ^ bit < count:
                yield index ^ bit
            bit <<= 1

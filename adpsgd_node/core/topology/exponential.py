"""Join members at exponentially growing distances: a logarithmic degree and diameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adpsgd_node.core.topology.contract import IndexedTopology

__all__ = ["Exponential", "exponential_hops"]


def exponential_hops(count: int) -> Iterator[int]:
    """Yield the hops {1} U {2^i + 1, i >= 1} below `count`.

    The AD-PSGD paper writes "2^i + 1 hops"; read with i = 0 that would give 2, the one even hop, which its own
    bipartite setting forbids. Hop 1 takes its place, and makes every such graph contain the ring.
    """
    if count > 1:
        yield 1
    power = 2
    while power + 1 < count:
        yield power + 1
        power *= 2


class Exponential(IndexedTopology):
    """Each member has those 1, 3, 5, 9, 17, ... places away as neighbors, in both directions."""

    name = "exponential"

    def adjacent(self, index: int, count: int) -> Iterable[int]:
        for hop in exponential_hops(count):
            yield (index + hop) % count
            yield (index - hop) % count

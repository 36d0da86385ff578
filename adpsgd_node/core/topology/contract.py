"""Say what a topology is: who exchanges with whom among the live members."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import ClassVar

__all__ = ["IndexedTopology", "Topology"]


class Topology(ABC):
    """An undirected, connected graph over the live members.

    It is a pure function of the sorted names, so nodes with the same membership agree on it without a word.
    """

    name: ClassVar[str]

    def placed(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return those of the sorted `names` that have a place in this graph."""
        return tuple(names)

    @abstractmethod
    def neighbors(self, names: Sequence[str], own: str) -> tuple[str, ...]:
        """Return the neighbors of `own`, sorted; `names` are the live members, sorted and with `own` among them."""


class IndexedTopology(Topology):
    """A topology in which only a member's place among the sorted names matters."""

    def neighbors(self, names: Sequence[str], own: str) -> tuple[str, ...]:
        index = bisect_left(names, own)
        found = index < len(names) and names[index] == own
        assert found, f"{own!r} is not among the sorted live names {list(names)}"
        return tuple(names[other] for other in sorted(set(self.adjacent(index, len(names))) - {index}))

    @abstractmethod
    def adjacent(self, index: int, count: int) -> Iterable[int]:
        """Return the places next to `index` among `count` members; repeats, and `index` itself, do no harm."""

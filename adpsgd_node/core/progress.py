"""Merge the steps and samples of all nodes: a grow-only counter.

Each life of each node is the only one to raise its own entry; everyone else keeps the largest values it has heard of.
Merging is therefore commutative, associative and idempotent, and gossip in any order ends at the same totals.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from adpsgd_node.ids import NodeId

__all__ = ["MAX_PROGRESS_ENTRIES", "Progress", "ProgressEntry", "Totals"]

MAX_PROGRESS_ENTRIES = 8192
"""Most lives of nodes one run is counted over. Entries beyond it are not counted; `Progress.refused` says how many."""


@dataclass(frozen=True, slots=True)
class ProgressEntry:
    """The steps and samples of one life of one node."""

    node: NodeId
    steps: int
    samples: int

    def __str__(self) -> str:
        return f"{self.node} {self.steps}/{self.samples}"


@dataclass(frozen=True, slots=True)
class Totals:
    """The steps and samples of a whole run."""

    steps: int
    samples: int


class Progress:
    """A grow-only counter of the run's steps and samples, keyed by life of node."""

    def __init__(self, limit: int = MAX_PROGRESS_ENTRIES, *, owner: NodeId | None = None) -> None:
        """`owner` is the node that counts here: what others say of it is not heard."""
        self._limit = limit
        self._owner = owner
        self._latest: OrderedDict[NodeId, ProgressEntry] = OrderedDict()  # the most recently changed is last
        self._nodes: list[NodeId] = []  # entries are never removed: a random pick costs O(1)
        self._steps = 0
        self._samples = 0
        self.refused = 0
        """Entries not counted because the counter is full."""

    def merge(self, entries: Iterable[ProgressEntry]) -> bool:
        """Take the elementwise maximum with `entries`; tell whether anything grew."""
        grown = [self._merge_one(entry) for entry in entries]
        return any(grown)

    def hear(self, entries: Iterable[ProgressEntry]) -> bool:
        """Merge what others say; nobody but the owner itself knows the owner's own count."""
        return self.merge(entry for entry in entries if entry.node != self._owner)

    def totals(self) -> Totals:
        """Sum the steps and samples of all lives of all nodes heard of."""
        return Totals(self._steps, self._samples)

    def of(self, node: NodeId) -> ProgressEntry:
        """Return the entry of `node`: zeros while it has not been heard of."""
        return self._latest.get(node, ProgressEntry(node, 0, 0))

    def entries(self) -> tuple[ProgressEntry, ...]:
        """Return every entry, sorted by name and boot."""
        return tuple(self._latest[node] for node in sorted(self._nodes))

    def sample(self, limit: int, rng: random.Random, *, without: NodeId | None = None) -> tuple[ProgressEntry, ...]:
        """Choose up to `limit` different entries: half the most recently changed, the rest at random.

        News travels fast by the first half; the second carries the last words of nodes that no longer change.
        """
        others = len(self._nodes) - (without in self._latest)
        if others <= limit:
            return tuple(entry for entry in self.entries() if entry.node != without)
        chosen: dict[NodeId, ProgressEntry] = {}
        for node in reversed(self._latest):
            if len(chosen) >= (limit + 1) // 2:
                break
            if node != without:
                chosen[node] = self._latest[node]
        for node in rng.sample(self._nodes, min(limit + 1, len(self._nodes))):
            if len(chosen) < limit and node != without:
                chosen[node] = self._latest[node]
        return tuple(chosen.values())

    def _merge_one(self, entry: ProgressEntry) -> bool:
        known = self._latest.get(entry.node)
        if known is None:
            if len(self._nodes) >= self._limit:
                self.refused += 1
                return False
            self._nodes.append(entry.node)
            known = ProgressEntry(entry.node, 0, 0)
            self._latest[entry.node] = known
        merged = ProgressEntry(entry.node, max(known.steps, entry.steps), max(known.samples, entry.samples))
        if merged == known:
            return False
        self._latest[entry.node] = merged
        self._latest.move_to_end(entry.node)
        self._steps += merged.steps - known.steps
        self._samples += merged.samples - known.samples
        return True

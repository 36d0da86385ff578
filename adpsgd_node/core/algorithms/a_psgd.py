"""Share out and count the work of A-PSGD's parameter servers (Lian et al. 2015, arXiv 1506.08272, section 3).

    u = x_pulled - x_stepped       what a worker's step made of the parameters it had pulled
    v <- mu v + u / n              the server, once for each push, in the order in which they come
    x <- x - v                     (Nesterov: x <- x - (u / n + mu v))

n is the number of workers: all of them together move the parameters as far as one does under the other algorithms
(as the staleness-aware rate of Zhang et al. 2016, arXiv 1511.05950: a push is n - 1 pushes late on average).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from adpsgd_node.ids import NodeId

__all__ = ["MAX_SERVERS", "MAX_WORKERS", "Ledger", "shards"]

MAX_SERVERS = 64
MAX_WORKERS = 1024
"""Workers that one server remembers; the one that pushed longest ago is forgotten first."""


def shards(chunk_count: int, servers: Sequence[str]) -> dict[str, range]:
    """Share the chunks out among the servers, evenly and in order; some get none when there are too few."""
    edges = [chunk_count * place // len(servers) for place in range(len(servers) + 1)]
    return {name: range(edges[place], edges[place + 1]) for place, name in enumerate(servers)}


@dataclass(slots=True)
class _Worker:
    applied: dict[int, int] = field(default_factory=dict)
    """The number of the last push that was applied to each chunk."""
    completed: int = 0
    """The number of the last push that was counted."""


class Ledger:
    """What one server has applied: nothing twice, even if a worker that lost an answer pushes again."""

    def __init__(self) -> None:
        self.version = 0
        """Pushes applied in whole."""
        self._workers: OrderedDict[NodeId, _Worker] = OrderedDict()

    def due(self, worker: NodeId, number: int, index: int) -> bool:
        """Note that a push is applied to a chunk; False: it has been before, or a later one has."""
        known = self._workers.setdefault(worker, _Worker())
        self._workers.move_to_end(worker)
        if len(self._workers) > MAX_WORKERS:
            self._workers.popitem(last=False)
        if known.applied.get(index, 0) >= number:
            return False
        known.applied[index] = number
        return True

    def complete(self, worker: NodeId, number: int, seen: int) -> int | None:
        """Count a push whose chunks have all come; returns its staleness, or None if it has been counted before.

        seen: the version that its worker had pulled. A push of no chunks is none.
        """
        known = self._workers.get(worker)
        if known is None or known.completed >= number:
            return None
        staleness = max(0, self.version - seen)
        known.completed = number
        self.version += 1
        return staleness

    def forget(self, worker: NodeId) -> None:
        """Drop what is remembered of a worker that will not push again."""
        self._workers.pop(worker, None)

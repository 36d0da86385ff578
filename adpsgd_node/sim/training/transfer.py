"""Carry transfers over the links of the nodes in virtual time.

Each node has one link up and one down, and each of the two carries one transfer at a time, in the order of arrival
(FIFO). Bytes flow through: what leaves a free link up arrives one latency later, and goes down at once when that link
is free too. So a link is never idle while something waits for it, and n transfers that begin together end when n that
share it fairly would have ended, the last of them; the earlier ones end earlier.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from adpsgd_node.sim.clock import Clock
from adpsgd_node.sim.training.link import LinkTable

__all__ = ["Transfer", "Transfers"]


class Transfer(NamedTuple):
    """Bytes on their way from one node to another."""

    source: int
    target: int
    payload_bytes: float
    earliest_s: float
    """When the first of them can leave."""
    on_its_way: Callable[[float], None]
    """Called when the link up is there for them, with the time at which the last one will have arrived."""


class Transfers:
    """The transfers of all nodes."""

    def __init__(self, clock: Clock, table: LinkTable) -> None:
        nodes = len(table.rate)
        self._clock = clock
        self._table = table
        self._rate: list[float] = table.rate.tolist()
        self._up_free = [0.0] * nodes
        self._down_free = [0.0] * nodes
        self._queues: list[deque[Transfer]] = [deque() for _ in range(nodes)]

    def send(self, transfer: Transfer) -> None:
        """Carry a transfer; what a node sends to itself takes no time."""
        source = transfer.source
        queue = self._queues[source]
        if source == transfer.target:
            transfer.on_its_way(max(transfer.earliest_s, self._clock.now))
        elif queue or self._up_free[source] > max(transfer.earliest_s, self._clock.now):
            if not queue:
                self._clock.at(self._up_free[source], self._next, source)
            queue.append(transfer)
        else:
            self._carry(transfer)

    def _next(self, source: int) -> None:
        """Let the transfer that waits longest for the link up of `source` begin."""
        queue = self._queues[source]
        self._carry(queue.popleft())
        if queue:
            self._clock.at(self._up_free[source], self._next, source)

    def _carry(self, transfer: Transfer) -> None:
        source, target, payload_bytes, earliest_s, on_its_way = transfer
        start_s = max(earliest_s, self._clock.now)
        sent_s = start_s + payload_bytes / self._table.rate_up(source, target)
        self._up_free[source] = sent_s
        latency_s = self._table.latency_of(source, target)
        taken_s = max(start_s + latency_s, self._down_free[target]) + payload_bytes / self._rate[target]
        self._down_free[target] = taken_s
        on_its_way(max(sent_s + latency_s, taken_s))

"""Keep the timers of the membership machine in one place, so that none can be lost.

A timer is a value that says what it was set for. One that no longer fits when it comes due (another boot, another
incarnation, an answered probe) is ignored by its owner, so nothing ever has to be cancelled.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from adpsgd_node.ids import NodeId

__all__ = [
    "AckOverdue",
    "JoinDue",
    "ProbeDue",
    "ProbeOver",
    "ReconnectDue",
    "RelayLate",
    "RelayOver",
    "Schedule",
    "SuspicionOver",
    "SyncDue",
    "Timer",
]


@dataclass(frozen=True, slots=True)
class ProbeDue:
    """Time to probe the next member."""


@dataclass(frozen=True, slots=True)
class AckOverdue:
    """No ack came in time: ask others, once and, with what is left of the probe's time, once more."""

    sequence: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class ProbeOver:
    """No ack came through relays either."""

    sequence: int


@dataclass(frozen=True, slots=True)
class RelayLate:
    """The target of a relayed ping has not answered yet: whoever asked waits for a word."""

    sequence: int


@dataclass(frozen=True, slots=True)
class RelayOver:
    """The target of a relayed ping did not answer."""

    sequence: int


@dataclass(frozen=True, slots=True)
class SuspicionOver:
    """A suspect had its time to refute."""

    id: NodeId
    incarnation: int


@dataclass(frozen=True, slots=True)
class ReconnectDue:
    """Time to try a member held dead and a seed not heard of."""


@dataclass(frozen=True, slots=True)
class SyncDue:
    """Time to compare all that is known with a random member; or with another, if the one asked did not answer."""

    again: bool = False


@dataclass(frozen=True, slots=True)
class JoinDue:
    """Time to ask a seed, or the seed asked did not answer."""

    attempt: int


Timer = ProbeDue | AckOverdue | ProbeOver | RelayLate | RelayOver | SuspicionOver | ReconnectDue | SyncDue | JoinDue


class Schedule:
    """A queue of timers by due time; equal times keep the order in which they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0

    def add(self, due: float, timer: Timer) -> None:
        """Set `timer` for `due`."""
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, timer))

    def earliest(self) -> float | None:
        """Return when the next timer is due; None when there is none."""
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> Timer | None:
        """Take out the earliest timer if it is due at `now`."""
        if self._heap and self._heap[0][0] <= now:
            return heapq.heappop(self._heap)[2]
        return None

    def postpone(self, by_s: float) -> None:
        """Move every timer later by `by_s` seconds."""
        self._heap = [(due + by_s, count, timer) for due, count, timer in self._heap]

    def clear(self) -> None:
        """Drop every timer."""
        self._heap.clear()

"""Order what happens in virtual time: nothing waits, the next event is simply taken."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["MAX_QUEUED_EVENTS", "Clock"]

MAX_QUEUED_EVENTS = 4_000_000
"""Most events waiting at once. More are a loop of events that breed events, and a defect."""


class Clock:
    """A queue of actions by due time; equal times keep the order in which they were set."""

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds since the simulation began."""
        self.events = 0
        """Actions carried out so far."""
        self._queue: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []
        self._count = 0

    def at(self, time: float, action: Callable[..., object], *arguments: object) -> None:
        """Call `action(*arguments)` at `time`; a time gone by means now, after what is already due."""
        if len(self._queue) >= MAX_QUEUED_EVENTS:
            raise RuntimeError(
                f"{MAX_QUEUED_EVENTS} events wait at {self.now} s: does some event breed others for ever?"
            )
        self._count += 1
        heapq.heappush(self._queue, (max(time, self.now), self._count, action, arguments))

    def after(self, seconds: float, action: Callable[..., object], *arguments: object) -> None:
        """Call `action(*arguments)` in `seconds` from now."""
        self.at(self.now + seconds, action, *arguments)

    def run_until(self, time: float) -> None:
        """Carry out all that is due up to `time`, and let it be `time`."""
        queue = self._queue
        while queue and queue[0][0] <= time:
            self.now, _, action, arguments = heapq.heappop(queue)
            self.events += 1
            action(*arguments)
        self.now = max(self.now, time)

    def run(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.run_until(self.now + seconds)

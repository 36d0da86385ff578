"""Say when an exchange is too slow to go on: silent for too long, or too long as a whole."""

from __future__ import annotations

import asyncio

__all__ = ["IDLE_S", "Pace"]

IDLE_S = 5.0
"""A stream on which nothing comes for so long is broken off, in seconds."""

FLOOR_S = 30.0
"""Every exchange may take so long, in seconds, whatever its size."""

LEAST_BYTES_PER_S = 64 * 1024
"""An exchange that is slower than this over its whole length is broken off: it holds a slot that others could use."""


class Pace:
    """The deadlines of one exchange of `total_bytes` in one direction, from now on."""

    def __init__(self, total_bytes: int, *, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._limit_s = FLOOR_S + total_bytes / LEAST_BYTES_PER_S
        self._end = asyncio.get_running_loop().time() + self._limit_s

    def next_deadline(self) -> float:
        """Return the loop time by which the next message must have come."""
        return min(self._end, asyncio.get_running_loop().time() + self._idle_s)

    def complaint(self) -> str:
        """Say what was missed, once `next_deadline` has passed."""
        if asyncio.get_running_loop().time() >= self._end:
            return f"not done after {self._limit_s:g} s"
        return f"no message for {self._idle_s:g} s"

"""Say when an exchange is too slow to go on, judged by the pace that its peer has had before."""

from __future__ import annotations

import asyncio

from adpsgd_node.core.exchange.rate import PeerRate

__all__ = ["OPEN_WAIT_S", "Pace"]

OPEN_WAIT_S = 5.0
"""Who opens a stream is not known before it has said so, in seconds."""


class Pace:
    """The deadlines of one exchange of `total_bytes` in one direction, from now on; what it shows goes into `rate`."""

    def __init__(self, rate: PeerRate, total_bytes: int, message_bytes: int, *, patient: bool = False) -> None:
        """`patient`: the first message may take any time, and the deadlines count from there."""
        self._rate = rate
        self._total_bytes = total_bytes
        self._limits = rate.deadlines(total_bytes, message_bytes)
        self._started = self._last = asyncio.get_running_loop().time()
        self._end = self._started + self._limits.whole_s
        self._patient = patient

    def next_deadline(self) -> float | None:
        """Return the loop time by which the next message must have come; None: whenever."""
        self._last = asyncio.get_running_loop().time()
        if self._patient:
            return None
        return min(self._end, self._last + self._limits.idle_s)

    def heard(self) -> None:
        """Note that the message waited for has come."""
        if self._patient:
            self._patient, self._started = False, asyncio.get_running_loop().time()
            self._end = self._started + self._limits.whole_s
            return
        self._rate.waited(asyncio.get_running_loop().time() - self._last)

    def completed(self) -> None:
        """Note that every chunk was exchanged."""
        self._rate.completed(self._total_bytes, asyncio.get_running_loop().time() - self._started)

    def missed(self) -> str:
        """Note that `next_deadline` has passed; say what was missed."""
        self._rate.timed_out()
        if asyncio.get_running_loop().time() >= self._end:
            return f"not done after {self._limits.whole_s:.3g} s"
        return f"no message for {self._limits.idle_s:.3g} s"

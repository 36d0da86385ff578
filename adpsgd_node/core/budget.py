"""Spread bytes over time: a token bucket that tells each taker how long to wait before it sends."""

from __future__ import annotations

__all__ = ["ByteBudget"]


class ByteBudget:
    """So many bytes a second for all takers together, and a burst after a pause.

    Tokens are taken ahead: a taker is served in its turn and waits until what it took has flowed in. In any time span t
    at most `burst_bytes + bytes_per_s * t` are therefore sent, however large a single message is.
    """

    def __init__(self, bytes_per_s: float, burst_bytes: float, now: float) -> None:
        if bytes_per_s <= 0 or burst_bytes < 0:
            raise ValueError(f"{bytes_per_s} bytes/s with a burst of {burst_bytes}: a budget needs a rate above 0")
        self._bytes_per_s = bytes_per_s
        self._burst_bytes = burst_bytes
        self._tokens = burst_bytes
        self._at = now

    def take(self, count: int, now: float) -> float:
        """Take `count` bytes; returns the seconds to wait before they may be sent."""
        self._refill(now)
        self._tokens -= count
        return max(0.0, -self._tokens / self._bytes_per_s)

    def give_back(self, count: int, now: float) -> None:
        """Return what was taken and not sent."""
        self._refill(now)
        self._tokens = min(self._burst_bytes, self._tokens + count)

    def wait_s(self, count: int, now: float) -> float:
        """Say how long it would take until `count` bytes more were sent, behind those already taken."""
        self._refill(now)
        return max(0.0, (count - self._tokens) / self._bytes_per_s)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst_bytes, self._tokens + self._bytes_per_s * max(0.0, now - self._at))
        self._at = max(self._at, now)

"""Say when a broken exchange is settled again: soon at first, then more seldom, and with a dead peer not for ever.

A responder thought dead may only be frozen, with what it applied still in its memory: it is waited for.
"""

from __future__ import annotations

__all__ = ["DEAD_RETRY_S", "SETTLE_TIMEOUT_S", "SettleRetry"]

SETTLE_TIMEOUT_S = 3.0
"""How long one `Settle` may wait for its answer."""
FIRST_RETRY_S = 0.1
LARGEST_RETRY_S = 5.0
DEAD_LIMIT_S = 3600.0
"""A peer that has been dead for so long is not waited for any more: membership forgets it about then."""
DEAD_RETRY_S = 1.0
"""How often to look whether a dead peer has come back."""


class SettleRetry:
    """The pauses of one settling that begins `now`."""

    def __init__(self, now: float) -> None:
        self._pause_s = FIRST_RETRY_S
        self._seen_at = now

    def alive(self, now: float) -> None:
        """Note that membership holds the peer live."""
        self._seen_at = now

    def hopeless(self, now: float) -> bool:
        """Tell whether the peer has been dead for too long."""
        return now - self._seen_at > DEAD_LIMIT_S

    def unanswered(self) -> float:
        """Return how long to wait before the peer, which is held live, is asked again."""
        pause_s, self._pause_s = self._pause_s, min(LARGEST_RETRY_S, 2 * self._pause_s)
        return pause_s

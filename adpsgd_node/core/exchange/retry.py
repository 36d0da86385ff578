"""Say when a broken exchange is settled again: soon at first, then more seldom, and with a dead peer not for ever.

A responder thought dead may only be frozen, with what it applied still in its memory: it is waited for.
"""

from __future__ import annotations

__all__ = ["DEAD_RETRY_S", "SettleRetry"]

FIRST_TIMEOUT_S = 3.0
"""How long the first `Settle` waits for its answer."""
LARGEST_TIMEOUT_S = 12.0
FIRST_RETRY_S = 0.1
LARGEST_RETRY_S = 5.0
DEAD_LIMIT_S = 3600.0
"""A peer that has been dead for so long is not waited for any more: membership forgets it about then."""
DEAD_RETRY_S = 1.0
"""How often to look whether a dead peer has come back."""


class SettleRetry:
    """The pauses of one settling that begins `now`."""

    def __init__(self, now: float) -> None:
        self.timeout_s = FIRST_TIMEOUT_S
        """How long the next `Settle` may wait for its answer."""
        self._pause_s = FIRST_RETRY_S
        self._seen_at = now

    def timed_out(self) -> None:
        """Note that no answer came in time: a peer whose answers take longer than that gets through in the end."""
        self.timeout_s = min(LARGEST_TIMEOUT_S, 2 * self.timeout_s)

    def alive(self, now: float) -> None:
        """Note that membership holds the peer live."""
        self._seen_at = now

    def dead(self, now: float) -> bool:
        """Note that membership holds the peer dead; tell whether it has for too long."""
        self.timeout_s = FIRST_TIMEOUT_S  # what was slow may have been its end
        return now - self._seen_at > DEAD_LIMIT_S

    def unanswered(self) -> float:
        """Return how long to wait before the peer, which is held live, is asked again."""
        pause_s, self._pause_s = self._pause_s, min(LARGEST_RETRY_S, 2 * self._pause_s)
        return pause_s

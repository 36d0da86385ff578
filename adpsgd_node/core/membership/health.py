"""Doubt this node's own health before that of others: Lifeguard's local health multiplier.

Dadgar, Phillips, Currey 2018 (arXiv 1707.00788), section 4.A: most members wrongly called dead were called so by nodes
that were themselves slow. Whoever has reason to think that it is, waits longer for answers and probes less often.
"""

from __future__ import annotations

__all__ = ["MAX_HEALTH", "Health"]

MAX_HEALTH = 8
"""Highest score: a node as ill as that takes nine times as long to judge another."""


class Health:
    """A score: 0 is well. Whatever is timed for an answer takes `1 + score` times as long."""

    def __init__(self) -> None:
        self._score = 0

    @property
    def score(self) -> int:
        """From 0, well, to `MAX_HEALTH`."""
        return self._score

    def scaled(self, seconds: float) -> float:
        """Return how long to wait for what takes a healthy node `seconds`."""
        return seconds * (1 + self._score)

    def improve(self) -> None:
        """Take note of an ack that came in time."""
        self._score = max(0, self._score - 1)

    def worsen(self, by: int = 1) -> None:
        """Take note of signs that this node is slow or deaf."""
        self._score = min(MAX_HEALTH, self._score + by)

"""Describe what a link of the in-memory network does to what passes over it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LinkFault"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFault:
    """The behaviour of one direction between two nodes; the default is a perfect link without delay."""

    delay_min_s: float = 0.0
    """Shortest time a message takes."""
    delay_max_s: float = 0.0
    """Longest time. Each message draws its own: streams and calls overtake each other, messages of one stream never."""
    call_loss: float = 0.0
    """Probability that a unary request, or an answer going this way, is lost; the caller runs into its deadline."""
    stream_reset: float = 0.0
    """Probability, per message of a stream, that the stream breaks instead of carrying it."""
    reset_at: int | None = None
    """Break every stream at its message of this number (from 0) in this direction."""

    def __post_init__(self) -> None:
        assert 0.0 <= self.delay_min_s <= self.delay_max_s, self
        assert 0.0 <= self.call_loss <= 1.0, self
        assert 0.0 <= self.stream_reset <= 1.0, self

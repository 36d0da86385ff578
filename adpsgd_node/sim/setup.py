"""Say what the exchanges of a simulated cluster are like."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ExchangeSetup"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSetup:
    """What the exchanges of a simulation are like; the same for every node."""

    chunk_count: int = 6
    """Chunks of the plane."""
    window: int = 2
    """Chunks an initiator sends ahead of the answers."""
    max_inbound: int = 2
    """Exchanges served at one time."""
    topology: str = "complete"
    """Graph over the live members."""
    step_interval_s: float = 1.0
    """Mean seconds between two steps of a node."""
    refusals: float = 0.01
    """Probability that a node's guard refuses a chunk."""
    clips: float = 0.1
    """Probability that a responder clips a chunk."""

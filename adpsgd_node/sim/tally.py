"""Count what the exchanges of a whole simulation came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from adpsgd_node.core.exchange.outcome import Outcome, SettleEnd
from adpsgd_node.ids import NodeId

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """One for all nodes."""

    started: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    """How exchanges ended, as their initiators saw it."""
    cut_short: int = 0
    """Exchanges whose initiator crashed meanwhile."""
    settled: Counter[SettleEnd] = field(default_factory=Counter)
    evicted: set[frozenset[NodeId]] = field(default_factory=set)
    """Pairs whose settling was given up because a journal was full: their mass is excused."""
    longest_s: float = 0.0
    """Longest time from the begin of an exchange to its end, on either side; a stopped process's time counts."""
    calm_since: float | None = None
    """From when on no fault disturbs an exchange."""
    waited: int = 0
    """Exchanges begun in the calm in which one side waited in vain for the other."""

    def ended(self, seconds: float) -> None:
        self.longest_s = max(self.longest_s, seconds)

    def late(self, began: float) -> None:
        """Take note that an exchange was broken off because nothing came."""
        if self.calm_since is not None and began >= self.calm_since:
            self.waited += 1

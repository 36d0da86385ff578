"""Say how one exchange went, for policy, metrics and agreement."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adpsgd_node.core.exchange.frame import Abort, Decline
from adpsgd_node.core.exchange.outcome import Outcome, Role
from adpsgd_node.core.exchange.quarantine import Offence
from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.daemon.merge import Merged
from adpsgd_node.ids import NodeId

__all__ = ["Distance", "ExchangeReport"]


@dataclass(slots=True)
class Distance:
    """Sums up the distance between two models over the chunks of one exchange."""

    squared: float = 0.0
    norm_squared: float = 0.0

    def add(self, merged: Merged) -> None:
        self.squared += merged.distance_squared
        self.norm_squared += merged.norm_squared

    @property
    def relative(self) -> float:
        """|theirs - mine| / |mine|; 0 when both are zero, infinite when only mine is."""
        if self.squared == 0.0:
            return 0.0
        return math.sqrt(self.squared / self.norm_squared) if self.norm_squared > 0 else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeReport:
    role: Role
    peer: NodeId
    outcome: Outcome
    seconds: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    steps_during: int = 0
    distance: float = 0.0
    """Relative, over the chunks that were averaged."""
    moved: bool = False
    """At least one chunk was averaged."""
    non_finite: bool = False
    """A chunk was refused, on either side, because it was not finite."""
    offence: Offence | None = None
    """What this node had to refuse of the peer."""
    abort: Abort | None = None
    """What the peer, as responder, would not answer."""
    decline: Decline | None = None
    cause: str = ""
    progress: tuple[ProgressEntry, ...] = ()
    """News of the run's counters that came with it."""
    round: int = 0
    """Of D-PSGD, in which the responder was; 0: none, or this node is the responder."""

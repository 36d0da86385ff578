"""Name the sides and the ends of an exchange; the values label the metrics."""

from __future__ import annotations

import enum

from adpsgd_node.core.exchange.frame import SettleOutcome

__all__ = ["Outcome", "Role", "SettleEnd"]


class Role(enum.Enum):
    INITIATOR = "initiator"
    RESPONDER = "responder"


class Outcome(enum.Enum):
    """How an exchange ended, on either side."""

    COMPLETE = "complete"
    """Every chunk was averaged."""
    PARTIAL = "partial"
    """Ended in good order before all chunks were averaged; those that were stay averaged."""
    DECLINED = "declined"
    """The responder was busy; nothing changed."""
    REFUSED = "refused"
    """The responder will not exchange with this node for now (not ready, poisoned, other run or model)."""
    BROKEN = "broken"
    """The stream broke; what was applied on one side only is settled afterwards."""
    UNREACHABLE = "unreachable"
    """No connection, or no answer to `Open`; nothing changed."""


class SettleEnd(enum.Enum):
    """How the settling of a broken exchange ended."""

    SETTLED = "settled"
    UNKNOWN = "unknown"
    """The responder had applied nothing of it."""
    REBOOTED = "rebooted"
    REFUSED = "refused"
    ABANDONED = "abandoned"
    """The peer has left or was followed by another boot: its half is lost with its memory."""
    EVICTED = "evicted"
    """Given up by the responder, for a peer that seemed dead, when its journal was full: its half stays applied."""

    @classmethod
    def of(cls, outcome: SettleOutcome) -> SettleEnd:
        return cls[outcome.name]

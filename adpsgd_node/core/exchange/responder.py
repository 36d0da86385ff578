"""Run the responder's side of one exchange: in order, journaled, closed or left to be settled.

    STREAMING --Close--> CLOSED                     (what the initiator did not apply is reverted)
    STREAMING --a chunk is refused--> ABORTING --Close--> CLOSED
    either --stream broken or frame out of order--> BROKEN   (the journal waits for `Settle`)

Pure. Whether an `Open` is accepted at all is the arbiter's rule.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from adpsgd_node.core.exchange.frame import AbortReason, Chunk, Close, Frame
from adpsgd_node.core.exchange.initiator import ChunkApplied, ChunkRefused, StreamBroke, StreamEnded
from adpsgd_node.core.exchange.outcome import Outcome

__all__ = [
    "Acknowledge",
    "Finish",
    "Merge",
    "Reply",
    "RespondEffect",
    "Responder",
    "ResponderEnded",
    "ResponderState",
    "SendAbort",
]


class ResponderState(enum.Enum):
    STREAMING = "streaming"
    ABORTING = "aborting"
    CLOSED = "closed"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The initiator has applied chunks [0, through): their undo may be dropped."""

    through: int


@dataclass(frozen=True, slots=True)
class Merge:
    """Snapshot the own chunk, apply half of (theirs - mine), journal it; then `ChunkApplied` or `ChunkRefused`."""

    index: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Send the snapshot taken by `Merge`."""

    index: int


@dataclass(frozen=True, slots=True)
class SendAbort:
    reason: AbortReason
    index: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Close the journal's entry: revert what was merged at or after `applied_through`."""

    applied_through: int


@dataclass(frozen=True, slots=True)
class ResponderEnded:
    outcome: Outcome
    cause: str = ""


RespondEffect = Acknowledge | Merge | Reply | SendAbort | Finish | ResponderEnded


class Responder:
    """The responder's half of one exchange over `chunk_count` chunks; at most `max_window` stay unacknowledged."""

    def __init__(self, chunk_count: int, max_window: int) -> None:
        self.state = ResponderState.STREAMING
        self.merged = 0
        self._acknowledged = 0
        self._chunk_count = chunk_count
        self._max_window = max_window

    def handle(
        self,
        event: Frame | ChunkApplied | ChunkRefused | StreamBroke | StreamEnded,
        abort_reason: AbortReason = AbortReason.NON_FINITE_THEIRS,
    ) -> tuple[RespondEffect, ...]:
        """Take one event; return what to do now. `abort_reason` says why, with `ChunkRefused`."""
        if self.state in (ResponderState.CLOSED, ResponderState.BROKEN):
            return ()
        match event:
            case StreamBroke(cause):
                return self._broken(cause)
            case StreamEnded():
                return self._broken("the initiator ended the stream without Close")
            case Chunk() if self.state is ResponderState.ABORTING:
                return ()  # sent before our Abort arrived there
            case Chunk(index, applied_through):
                return self._chunk(index, applied_through)
            case ChunkApplied(index):
                self.merged = index + 1
                return (Reply(index),)
            case ChunkRefused(index):
                self.state = ResponderState.ABORTING
                return (SendAbort(abort_reason, index),)
            case Close(applied_through):
                return self._close(applied_through)
            case _:
                return self._broken(f"{type(event).__name__} in state {self.state.value}")

    def _chunk(self, index: int, applied_through: int) -> tuple[RespondEffect, ...]:
        if index != self.merged or index >= self._chunk_count:
            return self._broken(f"chunk {index} came where {self.merged} of {self._chunk_count} was due")
        if not self._acknowledged <= applied_through <= self.merged:
            return self._broken(f"applied_through {applied_through} is outside {self._acknowledged}..{self.merged}")
        if index - applied_through >= self._max_window:
            return self._broken(f"{index - applied_through + 1} unacknowledged chunks exceed {self._max_window}")
        self._acknowledged = applied_through
        return (Acknowledge(applied_through), Merge(index))

    def _close(self, applied_through: int) -> tuple[RespondEffect, ...]:
        if not self._acknowledged <= applied_through <= self.merged:
            return self._broken(f"Close at {applied_through} is outside {self._acknowledged}..{self.merged}")
        self.state = ResponderState.CLOSED
        outcome = Outcome.COMPLETE if applied_through == self._chunk_count else Outcome.PARTIAL
        return (Finish(applied_through), ResponderEnded(outcome))

    def _broken(self, cause: str) -> tuple[ResponderEnded, ...]:
        self.state = ResponderState.BROKEN
        return (ResponderEnded(Outcome.BROKEN, cause),)

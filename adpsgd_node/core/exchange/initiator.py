"""Run the initiator's side of one exchange: which chunk to send, when to close, what was applied.

    OPENING --Accept--> STREAMING --last chunk applied, or Abort, or a refused chunk--> CLOSING --clean end--> DONE
    OPENING --Decline--> DONE
    STREAMING or CLOSING --stream broken or frame out of order--> BROKEN   (then `Settle` says what was applied)
    OPENING --the same--> BROKEN   (as unreachable: no chunk was sent, so the responder has applied nothing)

Pure: no clock, no I/O. The owner carries out the effects in order and reports back.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from adpsgd_node.core.exchange.frame import Abort, Accept, Chunk, Decline, DeclineReason, Frame
from adpsgd_node.core.exchange.outcome import Outcome

__all__ = [
    "Apply",
    "ChunkApplied",
    "ChunkRefused",
    "InitiateEffect",
    "Initiator",
    "InitiatorEnded",
    "InitiatorState",
    "SendChunk",
    "SendClose",
    "StreamBroke",
    "StreamEnded",
]


class InitiatorState(enum.Enum):
    OPENING = "opening"
    STREAMING = "streaming"
    CLOSING = "closing"
    DONE = "done"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class SendChunk:
    index: int
    applied_through: int


@dataclass(frozen=True, slots=True)
class SendClose:
    applied_through: int


@dataclass(frozen=True, slots=True)
class Apply:
    """Add half of (theirs - mine) for this chunk, then report `ChunkApplied` or `ChunkRefused`."""

    index: int


@dataclass(frozen=True, slots=True)
class InitiatorEnded:
    outcome: Outcome
    applied: int
    decline: Decline | None = None
    cause: str = ""


InitiateEffect = SendChunk | SendClose | Apply | InitiatorEnded


@dataclass(frozen=True, slots=True)
class ChunkApplied:
    index: int


@dataclass(frozen=True, slots=True)
class ChunkRefused:
    """The chunk held values that must not be applied; nothing of it was."""

    index: int


@dataclass(frozen=True, slots=True)
class StreamBroke:
    cause: str


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The responder ended its side cleanly."""


InitiateEvent = Frame | ChunkApplied | ChunkRefused | StreamBroke | StreamEnded


class Initiator:
    """The initiator's half of one exchange over `chunk_count` chunks with at most `window` unanswered."""

    def __init__(self, chunk_count: int, window: int) -> None:
        self.state = InitiatorState.OPENING
        self.applied = 0
        """Chunks [0, applied) have been applied here."""
        self._chunk_count = chunk_count
        self._window = window
        self._sent = 0

    def handle(self, event: InitiateEvent) -> tuple[InitiateEffect, ...]:
        """Take one event; return what to do now."""
        if self.state in (InitiatorState.DONE, InitiatorState.BROKEN):
            return ()
        match event:
            case StreamBroke(cause):
                return self._broken(cause)
            case StreamEnded():
                return self._ended()
            case Accept() if self.state is InitiatorState.OPENING:
                self.state = InitiatorState.STREAMING
                return self._fill() or self._close()
            case Decline() if self.state is InitiatorState.OPENING:
                self.state = InitiatorState.DONE
                passing = event.reason in (DeclineReason.BUSY, DeclineReason.SETTLED)
                return (InitiatorEnded(Outcome.DECLINED if passing else Outcome.REFUSED, 0, event),)
            case Chunk(index=index) if index == self.applied and index < self._sent:
                # In CLOSING, answers to what was sent earlier still come in; they are not applied any more.
                return (Apply(index),) if self.state is InitiatorState.STREAMING else ()
            case Chunk() if self.state is InitiatorState.CLOSING:
                return ()
            case ChunkApplied(index) if self.state is InitiatorState.STREAMING:
                self.applied = index + 1
                return self._close() if self.applied == self._chunk_count else self._fill()
            case ChunkRefused() if self.state is InitiatorState.STREAMING:
                return self._close()
            case Abort() if self.state is InitiatorState.STREAMING:
                return self._close()
            case Abort() if self.state is InitiatorState.CLOSING:
                return ()
            case _:
                return self._broken(f"{type(event).__name__} in state {self.state.value}")

    def _fill(self) -> tuple[SendChunk, ...]:
        first, last = self._sent, min(self._chunk_count, self.applied + self._window)
        self._sent = max(first, last)
        return tuple(SendChunk(index, self.applied) for index in range(first, last))

    def _close(self) -> tuple[SendClose, ...]:
        self.state = InitiatorState.CLOSING
        return (SendClose(self.applied),)

    def _ended(self) -> tuple[InitiateEffect, ...]:
        if self.state is not InitiatorState.CLOSING:
            return self._broken(f"the responder ended the stream in state {self.state.value}")
        self.state = InitiatorState.DONE
        complete = self.applied == self._chunk_count
        return (InitiatorEnded(Outcome.COMPLETE if complete else Outcome.PARTIAL, self.applied),)

    def _broken(self, cause: str) -> tuple[InitiatorEnded, ...]:
        outcome = Outcome.UNREACHABLE if self.state is InitiatorState.OPENING else Outcome.BROKEN
        self.state = InitiatorState.BROKEN
        return (InitiatorEnded(outcome, self.applied, cause=cause),)

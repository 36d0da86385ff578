"""Serve one exchange as its responder, in virtual time: what `daemon.respond` does around the same machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adpsgd_node.core.exchange.frame import Abort, AbortReason, Accept, Chunk, Open
from adpsgd_node.core.exchange.initiator import ChunkApplied, ChunkRefused, StreamBroke
from adpsgd_node.core.exchange.journal import ExchangeKey
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.exchange.responder import (
    Acknowledge,
    Finish,
    Merge,
    Reply,
    RespondEffect,
    Responder,
    ResponderEnded,
    SendAbort,
)
from adpsgd_node.sim.replica import decoded, encoded
from adpsgd_node.sim.stream import StreamEnd, StreamEvent
from adpsgd_node.wire.limits import MAX_WINDOW

if TYPE_CHECKING:
    from adpsgd_node.sim.node import ExchangeNode

__all__ = ["Response", "Undo"]


@dataclass(frozen=True, slots=True)
class Undo:
    """What takes one merged chunk back."""

    theirs: int
    mine: int
    scale: float


class Response:
    """One inbound exchange whose `Open` was accepted and whose journal entry is open."""

    def __init__(self, node: ExchangeNode, end: StreamEnd, open_: Open) -> None:
        self.machine = Responder(open_.chunk_count, MAX_WINDOW)
        self.key = ExchangeKey(open_.initiator, open_.exchange_id)
        self.began = node.now
        self._node = node
        self._end = end
        self._over = False
        self._snapshots: dict[int, Chunk] = {}
        self._watchdog = node.watchdog(self.key.initiator, self._late)
        end.take = self.take
        end.send(Accept(0))

    def take(self, event: StreamEvent) -> None:
        """Hear from the stream."""
        if self._over:
            return
        self._watchdog.heard()
        if not isinstance(event, StreamBroke) and self.settled_meanwhile():
            event = StreamBroke("settled while it ran")  # its own Settle overtook it: nothing more is applied
        self._do(self.machine.handle(event), event)

    def break_off(self, cause: str) -> None:
        """Cancel the stream; the exchange then ends in a turn of its own."""
        self._end.cancel()
        self._node.process.after(0.0, self.take, StreamBroke(cause))

    def settled_meanwhile(self) -> bool:
        """Tell whether the journal's entry was ended by somebody else."""
        return not self._node.journal.is_open(self.key)

    def record(self, index: int, undo: Undo) -> None:
        """Journal what takes a chunk back."""
        self._node.journal.record(self.key, index, undo)

    def _late(self, complaint: str) -> None:
        self._node.counts.late(self.began)
        self.take(StreamBroke(complaint))

    def _do(self, effects: Iterable[RespondEffect], event: StreamEvent | None = None) -> None:
        for effect in effects:
            match effect:
                case Acknowledge(through):
                    self._node.journal.acknowledge(self.key, through)
                case Merge(index):
                    assert isinstance(event, Chunk)
                    self._merge(index, decoded(event.data))
                case Reply(index):
                    self._end.send(self._snapshots.pop(index))
                case SendAbort(reason, index):
                    self._end.send(Abort(reason, index))
                case Finish(applied_through):
                    self._node.revert(self.key, self._node.journal.end(self.key, applied_through))
                case ResponderEnded():
                    self._finish(effect)

    def _merge(self, index: int, theirs: int) -> None:
        if self._node.guard_refuses():
            self._note("refuses chunk", index)
            self._do(self.machine.handle(ChunkRefused(index), AbortReason.NON_FINITE_THEIRS))
            return
        mine, scale = self._node.replica.values[index], self._node.scale()
        self._node.replica.merge(self.key.initiator, index, theirs, mine, scale)
        self.record(index, Undo(theirs, mine, scale))
        self._snapshots[index] = Chunk(index, 0, encoded(mine), scale)
        self._note("merges chunk", index)
        self._do(self.machine.handle(ChunkApplied(index)))

    def _finish(self, ended: ResponderEnded) -> None:
        self._over = True
        self._watchdog.stop(complete=ended.outcome is Outcome.COMPLETE)
        if not self.machine.merged and self._node.journal.is_open(self.key):
            self._node.journal.end(self.key, 0)  # nothing was applied: nothing to settle
        if ended.cause:
            self._end.cancel()
        else:
            self._end.close()
        self._node.response_ended(self, ended)

    def _note(self, what: str, index: int) -> None:
        if self._node.trace is not None:  # most runs write no transcript, and must not pay for one
            self._node.note(f"{self.key} {what} {index}")

"""Carry one exchange as its initiator, in virtual time: what `daemon.initiate` does around the same machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from adpsgd_node.core.exchange.frame import Chunk, Close, Open
from adpsgd_node.core.exchange.initiator import (
    Apply,
    ChunkApplied,
    ChunkRefused,
    InitiateEffect,
    Initiator,
    InitiatorEnded,
    SendChunk,
    SendClose,
    StreamBroke,
)
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.ids import Address
from adpsgd_node.sim.replica import decoded, encoded
from adpsgd_node.sim.stream import StreamEvent

if TYPE_CHECKING:
    from adpsgd_node.sim.node import ExchangeNode

__all__ = ["Initiation"]


class Initiation:
    """One outbound exchange; `ended` is called once."""

    def __init__(self, node: ExchangeNode, address: Address, open_: Open, ended: Callable[[InitiatorEnded], None]):
        self.machine = Initiator(open_.chunk_count, node.setup.window)
        self.peer = open_.responder
        self.exchange_id = open_.exchange_id
        self.began = node.now
        self._node = node
        self._ended = ended
        self._sent: dict[int, int] = {}
        self._over = False
        self._watchdog = node.watchdog(self.peer, self._late)
        self._end = node.transport.open(node.process, address)
        self._end.take = self.take
        self._end.send(open_)

    def take(self, event: StreamEvent) -> None:
        """Hear from the stream."""
        if not self._over:
            self._watchdog.heard()
            self._do(self.machine.handle(event), event)

    def break_off(self, cause: str) -> None:
        """Cancel the stream; the exchange then ends in a turn of its own."""
        self._end.cancel()
        self._node.process.after(0.0, self.take, StreamBroke(cause))

    def mine(self, index: int) -> int:
        """Return the own half of what crossed the wire."""
        return self._sent.pop(index)

    def current(self, index: int) -> int:
        """Return what a chunk is now, whatever has crossed the wire."""
        return self._node.replica.values[index]

    def scale(self, chunk: Chunk) -> float:
        """Return the part of the difference that the responder applied too."""
        return chunk.scale

    def _late(self, complaint: str) -> None:
        self._node.counts.late(self.began)
        self.take(StreamBroke(complaint))

    def _do(self, effects: Iterable[InitiateEffect], event: StreamEvent | None = None) -> None:
        for effect in effects:
            match effect:
                case Apply(index):
                    assert isinstance(event, Chunk)
                    self._apply(index, event)
                case SendChunk(index, applied_through):
                    value = self._sent[index] = self.current(index)
                    self._end.send(Chunk(index, applied_through, encoded(value)))
                    self._note("sends chunk", index, applied_through)
                case SendClose(applied_through):
                    self._end.send(Close(applied_through))
                    self._end.finish()
                    self._note("sends Close", applied_through, applied_through)
                case InitiatorEnded():
                    self._finish(effect)

    def _apply(self, index: int, chunk: Chunk) -> None:
        if self._node.guard_refuses():
            self._note("refuses chunk", index, self.machine.applied)
            self._do(self.machine.handle(ChunkRefused(index)))
            return
        self._node.replica.merge(self.peer, index, decoded(chunk.data), self.mine(index), self.scale(chunk))
        self._note("applies chunk", index, index + 1)
        self._do(self.machine.handle(ChunkApplied(index)))

    def _finish(self, ended: InitiatorEnded) -> None:
        self._over = True
        self._watchdog.stop(complete=ended.outcome is Outcome.COMPLETE)
        self._end.cancel()  # nothing happens when the peer ended it in good order
        self._ended(ended)

    def _note(self, what: str, number: int, applied: int) -> None:
        if self._node.trace is not None:
            self._node.note(f"{self._node.id}/{self.exchange_id} {what} {number}, applied through {applied}")

"""Carry one exchange as its responder: the I/O around `core.exchange.Responder`.

Taking the own snapshot, journaling and applying one chunk happen in one turn of the event loop, so inbound exchanges
never see each other half-done. Nothing here calls out (invariant 3).
"""

from __future__ import annotations

import asyncio

from adpsgd_node.codecs import Codec
from adpsgd_node.core.exchange.frame import Abort, AbortReason, Chunk, Frame, Open
from adpsgd_node.core.exchange.guard import NormJump
from adpsgd_node.core.exchange.initiator import ChunkApplied, ChunkRefused, StreamBroke, StreamEnded
from adpsgd_node.core.exchange.journal import ExchangeKey
from adpsgd_node.core.exchange.outcome import Outcome, Role
from adpsgd_node.core.exchange.quarantine import Offence
from adpsgd_node.core.exchange.referee import Referee
from adpsgd_node.core.exchange.responder import (
    Acknowledge,
    Finish,
    Reply,
    RespondEffect,
    Responder,
    ResponderEnded,
    SendAbort,
)
from adpsgd_node.core.exchange.responder import (
    Merge as MergeChunk,
)
from adpsgd_node.daemon.exchange_report import Distance, ExchangeReport
from adpsgd_node.daemon.merge import Merge, Merged, NonFinite, Side, offence_of
from adpsgd_node.daemon.pace import Pace
from adpsgd_node.daemon.undo import Undo, UndoLog
from adpsgd_node.errors import TransportError, WireError
from adpsgd_node.net.transport import Stream
from adpsgd_node.wire.framing import decode_frame, encode_chunk, encode_frame
from adpsgd_node.wire.limits import MAX_WINDOW

__all__ = ["Response"]


class Response:
    """One inbound exchange whose `Open` was accepted and whose journal entry is open."""

    def __init__(
        self,
        stream: Stream,
        open_: Open,
        open_bytes: int,
        merge: Merge,
        codec: Codec,
        referee: Referee,
        log: UndoLog,
        *,
        pace: Pace,
    ) -> None:
        self.machine = Responder(open_.chunk_count, MAX_WINDOW)
        self.distance = Distance()
        self.bytes_sent = 0
        self.bytes_received = open_bytes
        self.refused_side: Side | None = None
        self.offence: Offence | None = None
        self.key = ExchangeKey(open_.initiator, open_.exchange_id)
        self._open = open_
        self._stream = stream
        self._merge = merge
        self._codec = codec
        self._referee = referee
        self._log = log
        self._journal = log.journal
        self._pace = pace
        self._snapshots: dict[int, bytes] = {}
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(maxsize=MAX_WINDOW + 1)
        self._result: ResponderEnded | None = None

    async def run(self, accept: bytes) -> ResponderEnded:
        """Answer chunks until Close, or until the stream breaks; then the journal waits for `Settle`."""
        self._outbox.put_nowait(accept)
        sender = asyncio.create_task(self._send_all(), name=f"exchange {self.key} replies")
        try:
            return await self._receive_all(sender)
        except asyncio.CancelledError:
            self._broke("cancelled")
            raise
        finally:
            if not self.machine.merged and self._journal.is_open(self.key):
                self._journal.end(self.key, 0)  # nothing was applied: nothing to settle
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _receive_all(self, sender: asyncio.Task[None]) -> ResponderEnded:
        while self._result is None:
            try:
                async with asyncio.timeout_at(self._pace.next_deadline()):
                    message = await self._stream.receive()
                self._pace.heard()
                if not self._journal.is_open(self.key):
                    self._broke("settled while it ran")  # its own Settle overtook it: nothing more is applied
                elif message is None:
                    self._do(self.machine.handle(StreamEnded()))
                else:
                    self.bytes_received += len(message)
                    frame = decode_frame(message)
                    self._do(self.machine.handle(frame), frame)
            except TimeoutError:
                self._broke(self._pace.missed())
            except (TransportError, WireError) as error:
                self._broke(str(error))
            if sender.done() and not sender.cancelled() and (failure := sender.exception()) is not None:
                self._broke(str(failure))
        return self._result

    def _do(self, effects: tuple[RespondEffect, ...], frame: Frame | None = None) -> None:
        for effect in effects:
            match effect:
                case Acknowledge(through):
                    self._journal.acknowledge(self.key, through)
                case MergeChunk(index):
                    assert isinstance(frame, Chunk)
                    self._merge_chunk(index, memoryview(frame.data))
                case Reply(index):
                    self._queue(self._snapshots.pop(index))
                case SendAbort(reason, index):
                    self._queue(encode_frame(Abort(reason, index)))
                case Finish(applied_through):
                    self._log.finish(self.key, applied_through)
                case ResponderEnded():
                    self._result = effect
                    if effect.outcome is Outcome.COMPLETE:
                        self._pace.completed()

    def _merge_chunk(self, index: int, theirs: memoryview) -> None:
        mine = encode_chunk(index, 0, self._codec.encode(self._merge.view(index)))
        merged = self._merge.apply(
            self._codec, index, theirs, mine.data, lambda norms: self._referee.propose(index, norms)
        )
        if not isinstance(merged, Merged):
            self._refuse(index, merged)
            return
        if merged.scale != 1.0:
            mine = encode_chunk(index, 0, mine.data, merged.scale)
        self._journal.record(self.key, index, Undo(self._codec, theirs, mine.data, merged.scale))
        self.distance.add(merged)
        self._snapshots[index] = mine.message
        self._do(self.machine.handle(ChunkApplied(index)))

    def _refuse(self, index: int, refused: NonFinite | NormJump) -> None:
        self.offence = offence_of(refused, index)
        reason = AbortReason.NORM_JUMP
        if isinstance(refused, NonFinite):
            self.refused_side = refused.side
            own = refused.side is Side.OWN
            reason = AbortReason.NON_FINITE_OWN if own else AbortReason.NON_FINITE_THEIRS
        self._do(self.machine.handle(ChunkRefused(index), reason))

    def _queue(self, message: bytes) -> None:
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:
            self._broke("the initiator does not read its answers")

    def _broke(self, cause: str) -> None:
        self._do(self.machine.handle(StreamBroke(cause)))

    @property
    def outcome(self) -> Outcome:
        return self._result.outcome if self._result else Outcome.BROKEN

    @property
    def cause(self) -> str:
        """Why the stream broke; empty when it ended in good order."""
        return self._result.cause if self._result else "cancelled"

    def report(self, *, seconds: float, steps_during: int) -> ExchangeReport:
        """Say how the exchange went, once `run` has ended."""
        return ExchangeReport(
            role=Role.RESPONDER,
            peer=self._open.initiator,
            outcome=self.outcome,
            seconds=seconds,
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            steps_during=steps_during,
            distance=self.distance.relative,
            moved=self.machine.merged > 0,
            non_finite=self.refused_side is not None,
            offence=self.offence,
            cause=self.cause,
            progress=self._open.progress,
        )

    async def _send_all(self) -> None:
        while True:
            message = await self._outbox.get()
            self.bytes_sent += len(message)
            await self._stream.send(message)

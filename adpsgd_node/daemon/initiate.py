"""Carry one exchange as its initiator: the I/O around `core.exchange.Initiator`."""

from __future__ import annotations

import asyncio

import numpy as np

from adpsgd_node.codecs import Codec
from adpsgd_node.core.exchange.frame import Abort, AbortReason, Accept, Chunk, Close, Frame, Open
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
    StreamEnded,
)
from adpsgd_node.core.exchange.outcome import Outcome, Role
from adpsgd_node.core.exchange.quarantine import Offence
from adpsgd_node.core.exchange.referee import Referee
from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.daemon.exchange_report import Distance, ExchangeReport
from adpsgd_node.daemon.merge import Merge, Merged, NonFinite, Side, offence_of
from adpsgd_node.daemon.pace import Pace
from adpsgd_node.errors import StreamBrokenError, TransportError, WireError
from adpsgd_node.net.transport import Stream
from adpsgd_node.wire.framing import decode_frame, encode_chunk, encode_frame

__all__ = ["Initiation"]


class Initiation:
    """One outbound exchange over an open stream. `run` returns how it ended; the counters stay readable after it."""

    def __init__(
        self, stream: Stream, open_: Open, merge: Merge, codec: Codec, referee: Referee, *, window: int, pace: Pace
    ) -> None:
        self.machine = Initiator(open_.chunk_count, window)
        self.distance = Distance()
        self.bytes_sent = 0
        self.bytes_received = 0
        self.refused_side: Side | None = None
        self.offence: Offence | None = None
        self.aborted: Abort | None = None
        self.progress: tuple[ProgressEntry, ...] = ()
        self.round = 0
        self._stream = stream
        self._open = open_
        self._merge = merge
        self._codec = codec
        self._referee = referee
        self._pace = pace
        self._sent: dict[int, memoryview] = {}  # at most `window` snapshots of what crossed the wire
        self._outbox: asyncio.Queue[SendChunk | SendClose] = asyncio.Queue(maxsize=window + 1)
        self._result: InitiatorEnded | None = None

    async def run(self) -> InitiatorEnded:
        """Exchange until the stream ends or breaks; falling behind the pace breaks it."""
        sender = asyncio.create_task(self._send_all(), name=f"exchange {self._open.exchange_id} sender")
        try:
            return await self._receive_all(sender)
        finally:
            if self._result is None or self._result.cause or not sender.done():
                self._stream.cancel()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def report(self, ended: InitiatorEnded, *, seconds: float, steps_during: int) -> ExchangeReport:
        """Say how the exchange went, once `run` has ended."""
        told = self.aborted is not None and self.aborted.reason is not AbortReason.NORM_JUMP
        return ExchangeReport(
            role=Role.INITIATOR,
            peer=self._open.responder,
            outcome=ended.outcome,
            seconds=seconds,
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            steps_during=steps_during,
            distance=self.distance.relative,
            moved=ended.applied > 0,
            non_finite=self.refused_side is not None or told,
            offence=self.offence,
            abort=self.aborted,
            decline=ended.decline,
            cause=ended.cause,
            progress=self.progress,
            round=self.round,
        )

    def own_fault(self) -> int | None:
        """Return which of our own chunks turns out not to be finite; a peer's word alone is not enough."""
        if self.refused_side is Side.OWN:
            return self.machine.applied
        if self.aborted is None or self.aborted.index >= self._open.chunk_count:
            return None
        ruined = not np.isfinite(self._merge.view(self.aborted.index)).all()
        return self.aborted.index if ruined else None

    async def _receive_all(self, sender: asyncio.Task[None]) -> InitiatorEnded:
        while self._result is None:
            try:
                async with asyncio.timeout_at(self._pace.next_deadline()):
                    message = await self._stream.receive()
                self._pace.heard()
                if message is None:
                    self._do(self.machine.handle(StreamEnded()))
                    continue
                self.bytes_received += len(message)
                self._take(decode_frame(message))
            except TimeoutError:
                self._broke(self._pace.missed())
            except (TransportError, WireError) as error:
                self._broke(str(error))
            if sender.done() and not sender.cancelled() and (failure := sender.exception()) is not None:
                self._broke(str(failure))
        return self._result

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Accept):
            self.progress, self.round = frame.progress, frame.round
        if isinstance(frame, Abort):
            self.aborted = frame
        self._do(self.machine.handle(frame), frame)

    def _do(self, effects: tuple[InitiateEffect, ...], frame: Frame | None = None) -> None:
        for effect in effects:
            match effect:
                case Apply(index):
                    assert isinstance(frame, Chunk)
                    self._apply(index, frame)
                case InitiatorEnded():
                    self._result = effect
                    if effect.outcome is Outcome.COMPLETE:
                        self._pace.completed()
                case _:
                    self._outbox.put_nowait(effect)

    def _apply(self, index: int, frame: Chunk) -> None:
        mine = self._sent.pop(index, None)
        if mine is None:
            self._broke(f"chunk {index} was answered before it was sent")
            return
        merged = self._merge.apply(
            self._codec,
            index,
            memoryview(frame.data),
            mine,
            lambda norms: self._referee.check(index, norms, frame.scale),
        )
        if isinstance(merged, Merged):
            self.distance.add(merged)
            self._do(self.machine.handle(ChunkApplied(index)))
            return
        self.refused_side = merged.side if isinstance(merged, NonFinite) else None
        self.offence = offence_of(merged, index)
        self._do(self.machine.handle(ChunkRefused(index)))

    def _broke(self, cause: str) -> None:
        self._do(self.machine.handle(StreamBroke(cause)))

    async def _send_all(self) -> None:
        await self._send(encode_frame(self._open))
        while True:
            item = await self._outbox.get()
            if isinstance(item, SendClose):
                await self._send(encode_frame(Close(item.applied_through)))
                await self._stream.end()
                return
            # Snapshot as late as possible: what is sent is what `mine` means, whatever was applied meanwhile.
            chunk = encode_chunk(item.index, item.applied_through, self._codec.encode(self._merge.view(item.index)))
            self._sent[item.index] = chunk.data
            await self._send(chunk.message)

    async def _send(self, message: bytes) -> None:
        self.bytes_sent += len(message)
        try:
            await self._stream.send(message)
        except StreamBrokenError:
            self._stream.cancel()  # wakes the receiver, which reports it
            raise

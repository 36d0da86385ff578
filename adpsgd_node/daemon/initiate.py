"""Carry one exchange as its initiator: the I/O around `core.exchange.Initiator`."""

from __future__ import annotations

import asyncio

from adpsgd_node.codecs import Codec
from adpsgd_node.core.exchange.frame import Abort, Accept, Chunk, Close, Frame, Open
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
from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.daemon.exchange_report import Distance
from adpsgd_node.daemon.merge import Merge, NonFinite, Side
from adpsgd_node.daemon.pace import Pace
from adpsgd_node.errors import StreamBrokenError, TransportError, WireError
from adpsgd_node.net.transport import Stream
from adpsgd_node.wire.framing import decode_frame, encode_chunk, encode_frame

__all__ = ["Initiation"]


class Initiation:
    """One outbound exchange over an open stream. `run` returns how it ended; the counters stay readable after it."""

    def __init__(self, stream: Stream, open_: Open, merge: Merge, codec: Codec, *, window: int, pace: Pace) -> None:
        self.machine = Initiator(open_.chunk_count, window)
        self.distance = Distance()
        self.bytes_sent = 0
        self.bytes_received = 0
        self.refused_side: Side | None = None
        self.aborted: Abort | None = None
        self.progress: tuple[ProgressEntry, ...] = ()
        self._stream = stream
        self._open = open_
        self._merge = merge
        self._codec = codec
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

    async def _receive_all(self, sender: asyncio.Task[None]) -> InitiatorEnded:
        while self._result is None:
            try:
                async with asyncio.timeout_at(self._pace.next_deadline()):
                    message = await self._stream.receive()
                if message is None:
                    self._do(self.machine.handle(StreamEnded()))
                    continue
                self.bytes_received += len(message)
                self._take(decode_frame(message))
            except TimeoutError:
                self._broke(self._pace.complaint())
            except (TransportError, WireError) as error:
                self._broke(str(error))
            if sender.done() and not sender.cancelled() and (failure := sender.exception()) is not None:
                self._broke(str(failure))
        return self._result

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Accept):
            self.progress = frame.progress
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
                case _:
                    self._outbox.put_nowait(effect)

    def _apply(self, index: int, frame: Chunk) -> None:
        mine = self._sent.pop(index, None)
        if mine is None:
            self._broke(f"chunk {index} was answered before it was sent")
            return
        merged = self._merge.apply(self._codec, index, memoryview(frame.data), mine)
        if isinstance(merged, NonFinite):
            self.refused_side = merged.side
            self._do(self.machine.handle(ChunkRefused(index)))
        else:
            self.distance.add(merged)
            self._do(self.machine.handle(ChunkApplied(index)))

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

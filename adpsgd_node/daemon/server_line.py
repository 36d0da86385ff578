"""One worker's line to one parameter server: a stream that is opened anew when it breaks, and a push at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from adpsgd_node.codecs import codec_named
from adpsgd_node.core.exchange.frame import Chunk, CodecName, Decline, DeclineReason
from adpsgd_node.core.exchange.rate import Rates
from adpsgd_node.core.membership.member import Member
from adpsgd_node.daemon.pace import OPEN_WAIT_S, Pace
from adpsgd_node.daemon.server import NotFiniteError
from adpsgd_node.errors import AdpsgdError, ConfigError, StreamBrokenError, TransportError, WireError
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId
from adpsgd_node.net.transport import Stream, StreamMethod, Transport
from adpsgd_node.plane import Header, Plane
from adpsgd_node.telemetry.log import EventLog, OncePer
from adpsgd_node.telemetry.metrics import Metrics
from adpsgd_node.wire.framing import encode_chunk
from adpsgd_node.wire.update import Pulled, Push, UpdateAccept, UpdateOpen, decode_update, encode_update

__all__ = ["Line", "LineOffice", "Reserve"]

FIRST_RETRY_S = 0.02
LARGEST_RETRY_S = 1.0
"""Pauses before a server is dialed again; each is drawn between a half and the whole."""
LOG_AGAIN_S = 30.0
FOR_GOOD = frozenset({DeclineReason.RUN, DeclineReason.PROTOCOL, DeclineReason.SCHEMA})
"""Declines that no time mends."""

Vector = npt.NDArray[np.float32]


class Reserve:
    """The parameters as they were pulled, in float32, to tell what a step has made of them since."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        largest = plane.layout.chunk_bytes // 4
        self._scratch = np.empty(largest, np.float32)
        self._delta = np.empty(largest, np.float32)
        self._pulled = [self._view(index).copy() for index in range(len(plane.layout.chunks))]

    def difference(self, index: int) -> Vector:
        """Return what was pulled minus what is now: float32 [elements], valid until the next call."""
        delta = self._delta[: len(self._pulled[index])]
        with np.errstate(all="ignore"):
            np.subtract(self._pulled[index], self._view(index), out=delta)
        return delta

    def take(self, index: int, parameters: Vector) -> None:
        """Have the trainer fold what leads to these parameters, and note what its own will then be, bit by bit."""
        delta = self._delta[: len(parameters)]
        np.subtract(parameters, self._view(index), out=delta)
        self._plane.add_to_inbox(index, delta)
        np.copyto(self._pulled[index], self._view(index))

    def _view(self, index: int) -> Vector:
        return self._plane.read_view(index, self._scratch)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineOffice:
    """What all lines of a worker share."""

    identity: NodeId
    run_id: RunId
    servers: tuple[str, ...]
    codec: CodecName
    window: int
    transport: Transport
    member_named: Callable[[str], Member | None]
    """The live member of that name; None: nobody."""
    metrics: Metrics
    rng: random.Random
    rates: Rates = field(default_factory=Rates)


class Line:
    """The way to one server."""

    def __init__(self, name: str, office: LineOffice) -> None:
        self.server: NodeId | None = None
        """The life of the server that has answered; another one has not what this node pulled."""
        self.version = 0
        """Of the server, when this node pulled last."""
        self.pending: list[int] | None = None
        """Chunks of the present push not pulled yet; None: all."""
        self._name = name
        self._office = office
        self._codec = codec_named(office.codec)
        self._stream: Stream | None = None
        self._log = EventLog("push")
        self._once = OncePer(LOG_AGAIN_S)

    def close(self) -> None:
        """Break the stream; the next push dials anew."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    def next_push(self, header: Header, number: int, chunks: int) -> Push:
        """Return what goes ahead of the chunks of a push."""
        return Push(
            number=number,
            version=self.version,
            chunks=chunks,
            momentum=header.momentum,
            nesterov=bool(header.nesterov),
        )

    async def push(self, plane: Plane, reserve: Reserve, shard: range, number: int) -> None:
        """Push a shard's differences and take what is pulled, again and again until all of it is there.

        Raises `ConfigError` when the server will never take it, and `NotFiniteError`. One that has died is waited for:
        membership says so, and ends the node.
        """
        if self.pending is None:
            self.pending = list(shard)
        pause_s, complete = FIRST_RETRY_S, False
        while not complete:
            try:
                stream = self._stream or await self._dial(plane)
                complete = await self._converse(stream, plane, reserve, number)
            except (ConfigError, NotFiniteError):
                self.close()
                raise
            except (TransportError, WireError, TimeoutError) as error:
                self.close()
                if self._once.due(self._name, asyncio.get_running_loop().time()):
                    self._log.warning("a server does not answer; tries again", server=self._name, why=error)
                await asyncio.sleep(pause_s * self._office.rng.uniform(0.5, 1.0))  # before it is dialed again
                pause_s = min(LARGEST_RETRY_S, 2 * pause_s)
            except BaseException:
                self.close()  # in the middle of a push: what is under way belongs to it
                raise

    async def _dial(self, plane: Plane) -> Stream:
        office, layout = self._office, plane.layout
        member = office.member_named(self._name)
        if member is None:
            raise StreamBrokenError(f"{self._name} is not there")
        if self.server is not None and member.id != self.server:
            raise StreamBrokenError(f"{self._name} has begun a new life")
        stream = await office.transport.open(member.address, StreamMethod.UPDATE)
        try:
            open_ = UpdateOpen(
                protocol=PROTOCOL_VERSION,
                run_id=office.run_id,
                schema=layout.schema,
                worker=office.identity,
                server=member.id,
                codec=office.codec,
                chunk_bytes=layout.chunk_bytes,
                chunk_count=len(layout.chunks),
                servers=office.servers,
            )
            async with asyncio.timeout(OPEN_WAIT_S):
                await stream.send(encode_update(open_))
                message = await stream.receive()
            accept = self._accepted(message)
        except BaseException:
            stream.cancel()
            raise
        if self.server is None:
            self.version = accept.version
        self._stream, self.server = stream, member.id
        return stream

    def _accepted(self, message: bytes | None) -> UpdateAccept:
        answer = None if message is None else decode_update(message)
        if isinstance(answer, Decline):
            raise self._declined(answer)
        if not isinstance(answer, UpdateAccept):
            raise StreamBrokenError(f"UpdateAccept expected, {type(answer).__name__} came")
        return answer

    def _declined(self, decline: Decline) -> AdpsgdError:
        if decline.reason in FOR_GOOD:
            return ConfigError(f"server {self._name} refuses this node: {decline.detail}")
        if decline.reason is DeclineReason.POISONED:
            return NotFiniteError(f"server {self._name} refuses its push: {decline.detail}")
        return StreamBrokenError(f"{decline.reason.name.lower()}: {decline.detail}")

    async def _converse(self, stream: Stream, plane: Plane, reserve: Reserve, number: int) -> bool:
        """Push what is pending and pull the answers."""
        assert self.server is not None
        assert self.pending is not None
        pending, chunks = tuple(self.pending), plane.layout.chunks
        total_bytes = 4 * sum(chunks[index][1] - chunks[index][0] for index in pending)
        pace = Pace(self._office.rates.of(self.server), total_bytes, plane.layout.chunk_bytes)
        window = asyncio.Semaphore(self._office.window)
        push = self.next_push(plane.header, number, len(pending))
        sender = asyncio.create_task(self._send(stream, push, pending, reserve, window), name=f"push to {self._name}")
        try:
            while True:
                async with asyncio.timeout_at(pace.next_deadline()):
                    message = await stream.receive()
                pace.heard()
                frame = None if message is None else decode_update(message)
                if isinstance(frame, Pulled) and not self.pending:
                    self.version = frame.version
                    pace.completed()
                    return True
                if isinstance(frame, Decline):
                    raise self._declined(frame)
                if not isinstance(frame, Chunk) or frame.index not in self.pending:
                    raise StreamBrokenError(f"{self._name} sent {type(frame).__name__} where a pushed chunk was due")
                self._take(frame, plane, reserve)
                window.release()
        except TimeoutError:
            raise StreamBrokenError(pace.missed()) from None
        except StreamBrokenError:
            if sender.done() and not sender.cancelled() and isinstance(fault := sender.exception(), NotFiniteError):
                raise fault from None
            raise
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _take(self, chunk: Chunk, plane: Plane, reserve: Reserve) -> None:
        assert self.pending is not None
        start, stop = plane.layout.chunks[chunk.index]
        parameters = self._codec.decode(chunk.data, stop - start)
        if not np.isfinite(parameters).all():
            raise StreamBrokenError(f"chunk {chunk.index} of server {self._name} is not finite")
        reserve.take(chunk.index, parameters)
        self.pending.remove(chunk.index)
        self._office.metrics.moved(sent_bytes=0, received_bytes=memoryview(chunk.data).nbytes)

    async def _send(
        self, stream: Stream, push: Push, pending: tuple[int, ...], reserve: Reserve, window: asyncio.Semaphore
    ) -> None:
        try:
            await stream.send(encode_update(push))
            for index in pending:
                await window.acquire()
                update = reserve.difference(index)
                if not np.isfinite(update).all():
                    raise NotFiniteError(f"chunk {index} of this node's parameters is not finite")
                message = encode_chunk(index, 0, self._codec.encode(update)).message
                self._office.metrics.moved(sent_bytes=len(message), received_bytes=0)
                await stream.send(message)
        except (StreamBrokenError, NotFiniteError):
            stream.cancel()  # wakes the receiver, which reports it
            raise

"""Serve a part of the parameters to the workers of A-PSGD: apply each push as it comes, answer with what that makes.

The arithmetic is in `core.algorithms.a_psgd`. A push is applied chunk by chunk, each in one turn of the event loop.
Nothing here calls out (invariant 3).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import numpy as np
import numpy.typing as npt

from adpsgd_node.codecs import codec_named
from adpsgd_node.core.algorithms.a_psgd import Ledger, shards
from adpsgd_node.core.exchange.frame import Chunk, Decline, DeclineReason
from adpsgd_node.daemon.pace import OPEN_WAIT_S
from adpsgd_node.errors import StreamBrokenError, WireError
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId
from adpsgd_node.net.transport import Stream
from adpsgd_node.plane import Plane
from adpsgd_node.plane.layout import Layout
from adpsgd_node.telemetry.log import EventLog
from adpsgd_node.telemetry.metrics import Metrics
from adpsgd_node.wire.framing import encode_chunk
from adpsgd_node.wire.update import Pulled, Push, UpdateAccept, UpdateOpen, decode_update, encode_update

__all__ = ["NotFiniteError", "ParameterServer", "refuse_updates"]

MAX_STREAMS = 192
"""Workers that are served at once: their streams stay open, and other calls must find room beside them."""
MESSAGE_TIMEOUT_S = 60.0
"""How long a worker may take for one message in the middle of a push."""

Vector = npt.NDArray[np.float32]


@contextlib.asynccontextmanager
async def _limited(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(MESSAGE_TIMEOUT_S):
            yield
    except TimeoutError:
        raise StreamBrokenError(f"the worker {what} for {MESSAGE_TIMEOUT_S:g} s") from None


async def _opened(stream: Stream) -> UpdateOpen | None:
    try:
        async with asyncio.timeout(OPEN_WAIT_S):
            message = await stream.receive()
    except TimeoutError:
        raise StreamBrokenError(f"no UpdateOpen within {OPEN_WAIT_S:g} s") from None
    if message is None:
        return None
    frame = decode_update(message)
    if not isinstance(frame, UpdateOpen):
        raise WireError(f"an update begins with UpdateOpen, {type(frame).__name__} came")
    return frame


async def refuse_updates(stream: Stream) -> None:
    """Serve the stream of a worker on a node that is no server."""
    if await _opened(stream) is not None:
        await stream.send(encode_update(Decline(DeclineReason.IDENTITY, "this node serves no parameters")))


class NotFiniteError(WireError):
    """A push that would ruin the parameters; nothing of this chunk was applied."""


class ParameterServer:
    """One node's part of the parameters, apart from its plane; `found` gives it values, once."""

    def __init__(
        self,
        identity: NodeId,
        run_id: RunId,
        servers: tuple[str, ...],
        workers: Callable[[], int],
        known: Callable[[NodeId], bool],
        metrics: Metrics,
    ) -> None:
        """`workers`: how many nodes train now, one at least; `known`: whether a node is a live member."""
        self.stopping = False
        self._identity = identity
        self._run_id = run_id
        self._servers = servers
        self._workers = workers
        self._known = known
        self._metrics = metrics
        self._layout: Layout | None = None
        self._ledger = Ledger()
        self._parameters: dict[int, Vector] = {}
        self._velocity: dict[int, Vector] = {}
        self._streams: dict[NodeId, Stream] = {}
        self._log = EventLog("server")

    def found(self, plane: Plane) -> None:
        """Begin with what a node's view is now; a server that has begun keeps what it has."""
        if self._layout is not None:
            return
        self._layout = layout = plane.layout
        shard = shards(len(layout.chunks), self._servers)[self._identity.name]
        scratch = np.empty(layout.chunk_bytes // 4, np.float32)
        self._parameters = {index: plane.read_view(index, scratch).copy() for index in shard}
        self._log.info("serves parameters", chunks=f"{shard.start}-{shard.stop - 1}" if shard else "none")

    def break_off(self, worker: NodeId, *, for_good: bool) -> None:
        """Break the stream of a worker that is held dead, and may only be frozen; or (for_good) whose boot is over."""
        if (stream := self._streams.pop(worker, None)) is not None:
            stream.cancel()
        if for_good:
            self._ledger.forget(worker)

    def apply(self, worker: NodeId, push: Push, index: int, update: Vector) -> Vector:
        """Apply one chunk of a push unless that has been done; returns the parameters, which the caller only reads.

        update: float32 [elements of the chunk], parameters before minus after the worker's step.
        Raises `NotFiniteError`, and leaves the parameters as they were, when they would not be finite any more.
        """
        parameters = self._parameters[index]
        if not self._ledger.due(worker, push.number, index):
            return parameters
        assert self._layout is not None
        start, _ = self._layout.chunks[index]
        velocity = None
        with np.errstate(all="ignore"):  # what is not finite shows in the result
            step = update / np.float32(max(1, self._workers()))
            if push.momentum and start < self._layout.boundary:
                velocity = step + np.float32(push.momentum) * self._velocity.get(index, np.float32(0))
                step = step + np.float32(push.momentum) * velocity if push.nesterov else velocity
            moved = parameters - step
        if not (np.isfinite(moved).all() and (velocity is None or np.isfinite(velocity).all())):
            raise NotFiniteError(f"chunk {index} of the push of {worker.name} leads to what is not finite")
        self._parameters[index] = moved
        if velocity is not None:
            self._velocity[index] = velocity
        return moved

    def complete(self, worker: NodeId, push: Push) -> Pulled:
        """Count a push whose chunks have all come."""
        staleness = self._ledger.complete(worker, push.number, push.version)
        if staleness is not None:
            self._metrics.update_applied(staleness=staleness)
        return Pulled(self._ledger.version, staleness or 0)

    async def serve(self, stream: Stream) -> None:
        """Serve one worker until it ends its stream."""
        open_ = await _opened(stream)
        if open_ is None:
            return
        decline = self._judge(open_)
        if decline is not None:
            await stream.send(encode_update(decline))
            return
        worker = open_.worker
        if (before := self._streams.get(worker)) is not None:
            before.cancel()  # it has dialed anew: what came over the old stream was all there was
        self._streams[worker] = stream
        try:
            await stream.send(encode_update(UpdateAccept(self._ledger.version)))
            await self._converse(stream, open_)
        except NotFiniteError as error:
            self._log.error("refuses a push", worker=worker, why=error)
            await stream.send(encode_update(Decline(DeclineReason.POISONED, str(error))))
        finally:
            if self._streams.get(worker) is stream:
                del self._streams[worker]

    async def _converse(self, stream: Stream, open_: UpdateOpen) -> None:
        codec = codec_named(open_.codec)
        assert self._layout is not None
        while (message := await stream.receive()) is not None:
            push = decode_update(message)
            if not isinstance(push, Push):
                raise WireError(f"Push expected, {type(push).__name__} came")
            if push.chunks > len(self._parameters):
                raise WireError(f"push.chunks: at most {len(self._parameters)} are served here, got {push.chunks}")
            for _ in range(push.chunks):
                chunk = await self._chunk(stream)
                start, stop = self._layout.chunks[chunk.index]
                update = codec.decode(chunk.data, stop - start)
                answer = self.apply(open_.worker, push, chunk.index, update)
                message = encode_chunk(chunk.index, 0, codec.encode(answer)).message
                self._metrics.moved(sent_bytes=len(message), received_bytes=memoryview(chunk.data).nbytes)
                async with _limited("took no answer"):
                    await stream.send(message)
            await stream.send(encode_update(self.complete(open_.worker, push)))

    async def _chunk(self, stream: Stream) -> Chunk:
        async with _limited("sent nothing more of a push"):
            message = await stream.receive()
        if message is None:
            raise StreamBrokenError("the worker ended its stream in the middle of a push")
        chunk = decode_update(message)
        if not isinstance(chunk, Chunk):
            raise WireError(f"Chunk expected, {type(chunk).__name__} came")
        if chunk.index not in self._parameters:
            raise WireError(f"chunk {chunk.index} is not served here")
        return chunk

    def _judge(self, open_: UpdateOpen) -> Decline | None:
        layout = self._layout
        if open_.protocol != PROTOCOL_VERSION:
            detail = f"protocol {PROTOCOL_VERSION} expected, {open_.protocol} came"
            return Decline(DeclineReason.PROTOCOL, detail)
        if open_.run_id != self._run_id:
            return Decline(DeclineReason.RUN, f"run {self._run_id!r} expected, {open_.run_id!r} came")
        if open_.server != self._identity:
            return Decline(DeclineReason.IDENTITY, f"this is {self._identity}, the call was for {open_.server}")
        if open_.servers != self._servers:
            theirs, ours = ",".join(open_.servers), ",".join(self._servers)
            return Decline(DeclineReason.RUN, f"--servers {ours} here, {theirs} there: give all nodes the same")
        if not self._known(open_.worker):
            return Decline(DeclineReason.IDENTITY, f"{open_.worker} is no member as far as is known here")
        if self.stopping:
            return Decline(DeclineReason.STOPPING, "this node is leaving")
        if layout is None:
            return Decline(DeclineReason.NOT_READY, "no parameters yet")
        if (open_.schema, open_.chunk_bytes, open_.chunk_count) != (
            layout.schema,
            layout.chunk_bytes,
            len(layout.chunks),
        ):
            return Decline(DeclineReason.SCHEMA, "models or --chunk-bytes differ")
        if len(self._streams) >= MAX_STREAMS and open_.worker not in self._streams:
            return Decline(DeclineReason.BUSY, f"{MAX_STREAMS} workers are being served already")
        return None

"""Be one side of our own exchange: the daemon's engine over real gRPC, on a real plane, without the rest of a node."""

from __future__ import annotations

import asyncio
import os
import time
from multiprocessing.connection import Connection

import numpy as np
from side import HOST, Setup, Vector, await_text, fill, mean_error, own_values, publish, serve

from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.allocator import keep_freed_memory
from adpsgd_node.daemon.exchange_io import ExchangeEngine, Surroundings
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.settings import ExchangeConfig
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.net.grpc_transport import GrpcTransport
from adpsgd_node.net.transport import Method, Stream, StreamMethod
from adpsgd_node.plane import Fold, Layout, Plane

__all__ = ["work_node"]


class NodeSide:
    """One engine with its plane. Rank 0 initiates; rank 1 responds."""

    def __init__(self, setup: Setup) -> None:
        self._rank = setup.rank
        self._own = own_values(setup.rank)
        self._peer = NodeId(f"rank{1 - setup.rank}", 1)
        self._peer_address = Address("")
        self._plane = Plane.create(Layout.build(_specs(setup), setup.chunk_bytes))
        self._fold = Fold(self._plane)
        self._window = setup.window
        self._reports: list[ExchangeReport] = []
        self._transport = GrpcTransport(Address(f"{HOST}:0"))
        around = Surroundings(
            address_of=lambda _: self._peer_address,
            progress=tuple,
            report=self._reports.append,
            poisoned=_unexpected,
            settled=_unexpected,
        )
        config = ExchangeConfig(chunk_bytes=setup.chunk_bytes, window=setup.window)
        identity = NodeId(f"rank{setup.rank}", 1)
        self._engine = ExchangeEngine(identity, RunId("bench"), self._transport, config, around, Tasks(_unexpected))
        self._engine.use(self._plane)
        self._engine.ready = True

    async def start(self, folder: str) -> None:
        """Serve, and learn where the other side does."""
        address = await self._transport.serve(
            {Method.SETTLE: self._engine.settle},
            {StreamMethod.CONVERSE: self._engine.converse, StreamMethod.FETCH: self._echo},
        )
        publish(os.path.join(folder, f"node.{self._rank}"), address)
        self._peer_address = Address(await_text(os.path.join(folder, f"node.{1 - self._rank}")))

    async def reset(self, unfolded: bool) -> None:
        """Restore the initial values: all of them in `live`, as right after a step of the trainer, or half unfolded."""
        plane = self._plane
        plane.folded[:] = 0
        if unfolded:
            half = self._own * np.float32(0.5)  # exact, so the view is the same
            fill(plane.live, half)
            fill(plane.inbox, half)
            plane.version += np.uint64(1)
        else:
            fill(plane.live, self._own)
            plane.inbox[:] = 0
            plane.folded_version[:] = plane.version

    async def run(self, codec: str) -> float:
        """Exchange once; the responder only reports how long its part took."""
        if self._rank:
            return 0.0
        report = await self._engine.initiate(self._peer, self._peer_address, CodecName[codec.upper()])
        assert report.outcome is Outcome.COMPLETE, report
        return report.seconds

    async def error(self, _: object) -> float:
        """Check the view; then that the trainer's fold brings the same into `live`."""
        plane = self._plane
        view: Vector = plane.live + (plane.inbox - plane.folded)
        self._fold.fold()
        return max(mean_error(view), mean_error(plane.live))

    async def fold(self, _: object) -> float:
        """Take a whole unfolded plane in, as the trainer does before a step."""
        started = time.perf_counter()
        self._fold.fold()
        return time.perf_counter() - started

    async def floor(self, _: object) -> float:
        """Move as many bytes with the same window over the same transport, with nothing computed or copied by us."""
        if self._rank:
            return 0.0
        started = time.perf_counter()
        stream = await self._transport.open(self._peer_address, StreamMethod.FETCH)
        message = os.urandom(self._plane.layout.chunk_bytes + 16)
        count = len(self._plane.layout.chunks)
        window = asyncio.Semaphore(self._window)

        async def send() -> None:
            for _ in range(count):
                await window.acquire()
                await stream.send(message)
            await stream.end()

        sender = asyncio.create_task(send())
        while await stream.receive() is not None:
            window.release()
        await sender
        return time.perf_counter() - started

    async def _echo(self, stream: Stream) -> None:
        """Answer each message with one of the same length, in a task of its own, as the engine does."""
        waiting: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=self._window + 1)

        async def send() -> None:
            while (message := await waiting.get()) is not None:
                await stream.send(message)

        sender = asyncio.create_task(send())
        own = os.urandom(self._plane.layout.chunk_bytes + 16)
        count = 0
        while count < len(self._plane.layout.chunks) and await stream.receive() is not None:
            count += 1
            waiting.put_nowait(own)
        waiting.put_nowait(None)
        await sender

    async def close(self) -> None:
        await self._transport.close(grace_s=0.1)
        self._plane.close()


def work_node(setup: Setup, commands: Connection) -> None:
    """Serve one side's words until the pipe closes."""
    keep_freed_memory()  # as the daemon does
    asyncio.run(_work(setup, commands))


async def _work(setup: Setup, commands: Connection) -> None:
    side = NodeSide(setup)
    await side.start(setup.folder)
    words = {"reset": side.reset, "run": side.run, "error": side.error, "fold": side.fold, "floor": side.floor}
    try:
        await serve(words, commands)
    finally:
        await side.close()


def _specs(setup: Setup) -> list[TensorSpec]:
    """Cut the vector into equal tensors, whose padding is below what a chunk holds."""
    each, rest = divmod(setup.elements, setup.tensors)
    sizes = [each + (index < rest) for index in range(setup.tensors)]
    return [TensorSpec(f"weight{n}", (size,), "float32", Segment.PARAMETERS) for n, size in enumerate(sizes)]


def _unexpected(*what: object) -> None:
    raise AssertionError(f"unexpected: {what}")

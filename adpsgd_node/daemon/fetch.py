"""Fetch the run's parameters from several donors at once: the I/O around `core.fetch`."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from adpsgd_node.core.fetch import FetchConfig, FetchPlan
from adpsgd_node.core.fetch_event import (
    AskChunks,
    CancelRequest,
    ChunkArrived,
    DonorDropped,
    FetchDone,
    FetchEffect,
    FetchEvent,
    FetchFailed,
    FetchStarted,
    RangeEnded,
    RequestBroke,
    RequestRefused,
    RequestSpoilt,
)
from adpsgd_node.core.membership.member import Member
from adpsgd_node.daemon.driver import Driver
from adpsgd_node.daemon.settings import MIN_DONOR_BYTES_PER_S, JoiningConfig
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.errors import SchemaMismatchError, StreamBrokenError, TransportError, WireError
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId
from adpsgd_node.net.transport import Stream, StreamMethod, Transport
from adpsgd_node.plane import Plane
from adpsgd_node.telemetry.log import EventLog, OncePer
from adpsgd_node.telemetry.metrics import Metrics
from adpsgd_node.wire.fetch import (
    FetchChunk,
    FetchFrame,
    FetchHeader,
    FetchRequest,
    FetchTrailer,
    decode_fetch,
    encode_fetch,
)

__all__ = ["Fetcher"]

SILENCE_S = 10.0
"""A donor silent for so long, and for what a chunk takes at `SLOWEST_BYTES_PER_S`, is dropped."""
SLOWEST_BYTES_PER_S = MIN_DONOR_BYTES_PER_S / 4
"""What is left for one joiner of the smallest budget while others fetch too."""
LOG_AGAIN_S = 30.0
"""A fetch that fails is tried again for as long as it takes: the log hears of each donor this often at most."""
MAX_DONORS = 64
"""Donors considered for one fetch; they are tried in the order given."""


class Fetcher:
    """The asking side of a fetch."""

    def __init__(
        self, run_id: RunId, transport: Transport, config: JoiningConfig, metrics: Metrics, rng: random.Random
    ) -> None:
        self._run_id = run_id
        self._transport = transport
        self._config = config
        self._metrics = metrics
        self._rng = rng
        self._once = OncePer(LOG_AGAIN_S)

    async def fetch(self, donors: Sequence[Member], plane: Plane) -> NodeId:
        """Fill `plane.live` with chunks of the donors' views; returns the donor that gave most of them.

        Donors are tried in the order given, so it should be a random one.

        What arrives is no snapshot of any one node. The donors go on training and exchanging, so the chunks are of
        different moments, and of different nodes. AD-PSGD lives with that: a single donor's stream mixes moments just
        so, and donors are apart by their consensus distance, within which all nodes' parameters move anyhow. The first
        exchanges pull the joiner to the others. It is no exact copy all the same: who compares a joiner with a donor
        bit by bit finds differences unless the run stands still, and statistics that belong together (of a BatchNorm
        layer) may come from two nodes when a chunk boundary parts them.

        Raises `StreamBrokenError` naming each donor and why when none is left, and `SchemaMismatchError` when what
        they offer is cut otherwise than this plane. `plane.live` may then hold a part of their chunks.
        """
        able = [donor for donor in donors if not donor.outbound_only]
        if not able:
            raise StreamBrokenError("no donor can be dialled: those that have the model only call others themselves")
        chosen = able[:MAX_DONORS]
        chunk_bytes = plane.layout.chunk_bytes
        silence_s = SILENCE_S + chunk_bytes / SLOWEST_BYTES_PER_S
        config = replace(FetchConfig(), donors=self._config.donors, silence_s=silence_s)
        plan = FetchPlan(len(plane.layout.chunks), [donor.id for donor in chosen], config, self._rng)
        request = FetchRequest(PROTOCOL_VERSION, self._run_id, plane.layout.schema)
        addresses = {donor.id: donor.address for donor in chosen}
        return await _Fetch(plan, addresses, request, self._transport, plane, self._metrics, self._once).run()


class _Busy(TransportError):
    def __init__(self, why: str, retry_after_s: float) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class _Fetch:
    """One fetch: a task for each range under way, all ended when `run` returns."""

    def __init__(
        self,
        plan: FetchPlan,
        addresses: dict[NodeId, Address],
        request: FetchRequest,
        transport: Transport,
        plane: Plane,
        metrics: Metrics,
        once: OncePer,
    ) -> None:
        self._plan = plan
        self._addresses = addresses
        self._request = request
        self._transport = transport
        self._plane = plane
        self._metrics = metrics
        self._log = EventLog("fetch")
        self._once = once
        self._driver: Driver[FetchEvent, FetchEffect] = Driver(plan, self._execute)
        self._tasks = Tasks(lambda _, error: self._fail(error))
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._result: asyncio.Future[NodeId] = asyncio.get_running_loop().create_future()
        self._mismatch = ""

    async def run(self) -> NodeId:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._once.due("fetching", began):
            self._log.info("fetching the model", donors=len(self._addresses), chunks=len(self._plane.layout.chunks))
        try:
            self._driver.post(FetchStarted())
            donor = await self._result
        finally:
            self._driver.close()
            await self._tasks.cancel()
        given = " ".join(f"{node.name}:{count}" for node, count in sorted(self._plan.given.items()))
        seconds = loop.time() - began
        self._log.info("fetched the model", given=given, refetched=self._plan.refetched, seconds=seconds)
        return donor

    def _execute(self, effect: FetchEffect) -> None:
        match effect:
            case AskChunks(number, donor, first, stop):
                name = f"fetch chunks {first} to {stop - 1} from {donor}"
                self._asking[number] = self._tasks.start(name, self._ask(effect))
            case CancelRequest(number):
                if (task := self._asking.pop(number, None)) is not None:
                    task.cancel()
            case DonorDropped(donor, why):
                if self._once.due(donor, asyncio.get_running_loop().time()):
                    self._log.warning("asks this donor no more", donor=donor, why=why, missing=self._plan.left)
            case FetchDone(donor):
                if not self._result.done():
                    self._result.set_result(donor)
            case FetchFailed(reasons):
                self._fail(self._failure(reasons))

    def _failure(self, reasons: tuple[tuple[NodeId, str], ...]) -> Exception:
        if self._mismatch:
            return SchemaMismatchError(self._mismatch)
        return StreamBrokenError(f"no donor is left: {'; '.join(f'{donor}: {why}' for donor, why in reasons)}")

    def _fail(self, error: BaseException) -> None:
        if not self._result.done():
            self._result.set_exception(error)

    async def _ask(self, ask: AskChunks) -> None:
        """Fetch one range, and tell the plan what came of it."""
        try:
            stream = await self._transport.open(self._addresses[ask.donor], StreamMethod.FETCH)
            try:
                request = replace(self._request, first_chunk=ask.first, chunk_count=ask.stop - ask.first)
                await stream.send(encode_fetch(request))
                await stream.end()
                await self._receive(stream, ask)
            except BaseException:
                stream.cancel()
                raise
        except _Busy as busy:
            self._post(RequestRefused(ask.request, str(busy), busy.retry_after_s))
        except WireError as error:
            self._post(RequestSpoilt(ask.request, str(error)))
        except TransportError as error:
            self._post(RequestBroke(ask.request, str(error)))
        else:
            self._post(RangeEnded(ask.request))
        finally:
            self._asking.pop(ask.request, None)

    async def _receive(self, stream: Stream, ask: AskChunks) -> None:
        self._check_header(await _next(stream))
        digest = 0
        for index in range(ask.first, ask.stop):
            chunk = self._checked(await _next(stream), index)
            digest = zlib.crc32(chunk.crc32.to_bytes(4, "little"), digest)
            if self._plan.wanted(ask.request):
                start, stop = self._plane.layout.chunks[index]
                self._plane.live[start:stop] = np.frombuffer(chunk.data, np.float32)
                self._metrics.model_fetched(4 * (stop - start))
            else:
                self._metrics.chunk_refetched()
            self._post(ChunkArrived(ask.request))
            await asyncio.sleep(0)  # what has piled up must not keep the loop from its pings
        trailer = await _next(stream)
        if not isinstance(trailer, FetchTrailer) or trailer.crc32 != digest:
            raise WireError(f"chunks {ask.first} to {ask.stop - 1} do not end with their checksum")

    def _check_header(self, header: FetchFrame) -> None:
        if not isinstance(header, FetchHeader):
            raise WireError(f"a fetch is answered with FetchHeader, {type(header).__name__} came")
        layout = self._plane.layout
        offered = (header.chunk_count, header.chunk_bytes)
        if offered != (0, 0) and offered != (len(layout.chunks), layout.chunk_bytes):
            self._mismatch = (
                f"{len(layout.chunks)} chunks of {layout.chunk_bytes} bytes expected, {header.chunk_count} of "
                f"{header.chunk_bytes} offered: set the same --chunk-bytes on every node"
            )
            raise WireError(self._mismatch)
        if header.refusal is not None and header.retry_after_ms:
            raise _Busy(header.refusal.detail, header.retry_after_ms / 1000)
        if header.refusal is not None:
            raise WireError(f"it refuses: {header.refusal.detail}")
        if offered == (0, 0):
            raise WireError("a donor that does not refuse says how many chunks it has")

    def _checked(self, frame: FetchFrame, index: int) -> FetchChunk:
        """Raises `WireError` unless `frame` is chunk `index`, whole, unharmed and finite."""
        start, stop = self._plane.layout.chunks[index]
        if not isinstance(frame, FetchChunk) or frame.index != index:
            raise WireError(f"chunk {index} expected, something else came")
        if len(frame.data) != 4 * (stop - start):
            raise WireError(f"chunk {index} has {len(frame.data)} bytes, not {4 * (stop - start)}")
        if zlib.crc32(frame.data) != frame.crc32:
            raise WireError(f"chunk {index} fails its checksum")
        if not np.isfinite(np.frombuffer(frame.data, np.float32)).all():
            raise WireError(f"chunk {index} holds values that are not finite")
        return frame

    def _post(self, event: FetchEvent) -> None:
        self._driver.post(event)


async def _next(stream: Stream) -> FetchFrame:
    """Wait for the next frame; the plan's deadlines end a wait that is too long."""
    message = await stream.receive()
    if message is None:
        raise StreamBrokenError("it ended the stream early")
    return decode_fetch(message)

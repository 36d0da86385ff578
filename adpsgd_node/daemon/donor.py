"""Serve this node's model to nodes that join: say whether there is one, and give ranges of it within a byte budget."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adpsgd_node.core.adoption import Standing
from adpsgd_node.core.budget import ByteBudget
from adpsgd_node.core.membership.member import Phase
from adpsgd_node.core.membership.packet import Refusal, RefusalReason
from adpsgd_node.daemon.settings import JoiningConfig
from adpsgd_node.errors import StreamBrokenError, WireError
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId, SchemaHash
from adpsgd_node.net.transport import Stream
from adpsgd_node.plane import Plane
from adpsgd_node.telemetry.log import EventLog, OncePer
from adpsgd_node.telemetry.metrics import FetchEnd, Metrics
from adpsgd_node.wire.fetch import (
    FetchHeader,
    FetchRequest,
    FetchTrailer,
    decode_fetch,
    encode_fetch,
    encode_fetch_chunk,
)
from adpsgd_node.wire.limits import MAX_RETRY_AFTER_MS
from adpsgd_node.wire.model import OfferRequest, OfferResponse, decode_offer_request, encode_offer_response

__all__ = ["BLOCK_BYTES", "BURST_S", "MAX_FETCHES", "SEND_TIMEOUT_S", "Donor", "Holding"]

MAX_FETCHES = 2
"""Ranges given at once; a further joiner is told when to ask again."""
BURST_S = 0.1
"""Seconds' worth of the byte budget that may go at once after a pause."""
MIN_RETRY_AFTER_MS = 50
REQUEST_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 30.0
"""A joiner that takes no chunk for so long is given up: it holds a place that others wait for."""
BLOCK_BYTES = 1 << 20
"""Bytes that are copied or summed up in one turn of the event loop: about a millisecond."""
LOG_AGAIN_S = 300.0
MAX_ASKERS = 4096


@dataclass(frozen=True, slots=True)
class Holding:
    """What this node could give just now."""

    phase: Phase
    plane: Plane | None
    """None until the trainer has announced its model."""
    has_model: bool
    """The plane holds the run's parameters, all finite."""
    checkpoint: Standing | None = None
    """How far the run was in the newest checkpoint this node could go on from; None: it has none."""


class Donor:
    """The answering side of the Model service. Calls nobody (invariant 3)."""

    def __init__(
        self,
        identity: NodeId,
        run_id: RunId,
        algorithm: str,
        holding: Callable[[], Holding],
        config: JoiningConfig,
        metrics: Metrics,
    ) -> None:
        self._identity = identity
        self._run_id = run_id
        self._algorithm = algorithm
        self._holding = holding
        self._metrics = metrics
        self._bytes_per_s = config.donor_bytes_per_s
        self._budget: ByteBudget | None = None
        self._gifts: dict[_Gift, None] = {}
        """Ranges under way, at most `MAX_FETCHES`."""
        self._askers: set[NodeId] = set()
        self._log = EventLog("donor")
        self._once = OncePer(LOG_AGAIN_S)

    def askers(self) -> frozenset[NodeId]:
        """Return who has asked for an offer since the last call: each has a script, and no model yet."""
        askers, self._askers = frozenset(self._askers), set()
        return askers

    async def offer(self, data: bytes) -> bytes:
        """Say what this node is doing and whether it has a model."""
        request = decode_offer_request(data)
        holding = self._holding()
        refusal = self._refusal(request, holding.plane)
        if refusal is not None:
            self._turned_away(request.source, refusal)
        elif len(self._askers) < MAX_ASKERS:
            self._askers.add(request.source)
        differs = refusal is not None and refusal.reason is RefusalReason.SCHEMA and holding.plane is not None
        standing = holding.checkpoint or Standing(samples=0, steps=0)
        response = OfferResponse(
            source=self._identity,
            phase=holding.phase,
            has_model=holding.has_model,
            step=holding.plane.header.step if holding.plane else 0,
            refusal=refusal,
            tensors=tuple(p.spec for p in holding.plane.layout.placements) if differs and holding.plane else (),
            has_checkpoint=holding.checkpoint is not None,
            checkpoint_steps=standing.steps,
            checkpoint_samples=standing.samples,
        )
        return encode_offer_response(response)

    async def fetch(self, stream: Stream) -> None:
        """Stream a range of the node's view chunk by chunk, each as it is when its turn comes."""
        request = await _request(stream)
        holding = self._holding()
        header = self._answer(request, holding)
        if header.refusal is not None or holding.plane is None:
            self._metrics.fetch_ended(FetchEnd.BUSY if header.retry_after_ms else FetchEnd.REFUSED)
            await _send(stream, encode_fetch(header))
            return
        stop = request.first_chunk + request.chunk_count if request.chunk_count else header.chunk_count
        gift = _Gift(holding.plane, range(request.first_chunk, stop))
        self._gifts[gift] = None
        end = FetchEnd.BROKEN
        try:
            await _send(stream, encode_fetch(header))
            await self._give(stream, gift)
            end = FetchEnd.COMPLETE
        finally:
            del self._gifts[gift]
            self._metrics.fetch_ended(end)

    async def _give(self, stream: Stream, gift: _Gift) -> None:
        digest = 0
        while gift.chunks:
            index = gift.chunks[0]
            await self._afford(gift.chunk_bytes(index))
            now = self._holding()
            if now.plane is not gift.plane or not now.has_model:
                raise StreamBrokenError("this node has given its model up")
            data, crc32 = await _snapshot(gift.plane, index, gift.scratch)
            digest = zlib.crc32(crc32.to_bytes(4, "little"), digest)
            await _send(stream, encode_fetch_chunk(index, crc32, data))
            self._metrics.model_given(len(data))
            gift.chunks = gift.chunks[1:]
        await _send(stream, encode_fetch(FetchTrailer(digest)))

    async def _afford(self, count: int) -> None:
        """Wait until the budget allows `count` bytes more; all fetches share it, in the order in which they ask."""
        loop = asyncio.get_running_loop()
        budget = self._purse(loop.time())
        wait_s = budget.take(count, loop.time())
        try:
            await asyncio.sleep(wait_s)  # 0 as well: between two chunks the loop turns
        except asyncio.CancelledError:
            budget.give_back(count, loop.time())
            raise

    def _purse(self, now: float) -> ByteBudget:
        if self._budget is None:
            self._budget = ByteBudget(self._bytes_per_s, BURST_S * self._bytes_per_s, now)
        return self._budget

    def _answer(self, request: FetchRequest, holding: Holding) -> FetchHeader:
        """Say what will follow, or why nothing does."""
        plane = holding.plane
        refusal = self._refusal(request, plane)
        if refusal is not None:
            return FetchHeader(refusal=refusal)
        if plane is None or not holding.has_model:
            return FetchHeader(refusal=Refusal(RefusalReason.FULL, "this node has no model to give"))
        if holding.phase is Phase.DRAINING:
            return FetchHeader(refusal=Refusal(RefusalReason.FULL, "this node is leaving"))
        count, chunk_bytes = len(plane.layout.chunks), plane.layout.chunk_bytes
        retry_after_ms = 0
        if request.first_chunk >= count or request.first_chunk + request.chunk_count > count:
            last = request.first_chunk + request.chunk_count
            detail = f"chunks {request.first_chunk} to {last} were asked for, there are {count}"
            refusal = Refusal(RefusalReason.SCHEMA, detail)
        elif len(self._gifts) >= MAX_FETCHES:
            refusal = Refusal(RefusalReason.FULL, f"{MAX_FETCHES} joining nodes are being served already")
            retry_after_ms = self._retry_after_ms()
        return FetchHeader(
            refusal=refusal,
            chunk_count=count,
            chunk_bytes=chunk_bytes,
            step=plane.header.step,
            retry_after_ms=retry_after_ms,
        )

    def _retry_after_ms(self) -> int:
        """Estimate when all ranges under way will have been given."""
        now = asyncio.get_running_loop().time()
        queued = sum(gift.left_bytes() for gift in self._gifts)
        wait_ms = 1000 * self._purse(now).wait_s(queued, now)
        return min(max(int(wait_ms), MIN_RETRY_AFTER_MS), MAX_RETRY_AFTER_MS)

    def _turned_away(self, source: NodeId, refusal: Refusal) -> None:
        if self._once.due((source.name, refusal.reason), asyncio.get_running_loop().time()):
            self._log.warning("refused a node that asks for the model", node=source, why=refusal)

    def _refusal(self, request: OfferRequest | FetchRequest, plane: Plane | None) -> Refusal | None:
        if request.protocol != PROTOCOL_VERSION:
            detail = f"protocol {PROTOCOL_VERSION} expected, {request.protocol} came"
            return Refusal(RefusalReason.PROTOCOL, detail)
        if request.run_id != self._run_id:
            return Refusal(RefusalReason.RUN, f"run {self._run_id!r} expected, {request.run_id!r} came")
        if isinstance(request, OfferRequest) and request.algorithm != self._algorithm:
            detail = f"it runs {self._algorithm}, and {request.algorithm} came: give all nodes the same"
            return Refusal(RefusalReason.RUN, detail)
        schema: SchemaHash | None = plane.layout.schema if plane else None
        if schema is not None and request.schema != schema:
            return Refusal(RefusalReason.SCHEMA, "the models differ")
        return None


class _Gift:
    """One range under way."""

    def __init__(self, plane: Plane, chunks: range) -> None:
        self.plane = plane
        self.chunks = chunks
        """Those still to be given."""
        self.scratch = np.empty(plane.layout.chunk_bytes // 4, np.float32)

    def chunk_bytes(self, index: int) -> int:
        start, stop = self.plane.layout.chunks[index]
        return 4 * (stop - start)

    def left_bytes(self) -> int:
        return len(self.chunks) * self.plane.layout.chunk_bytes


async def _request(stream: Stream) -> FetchRequest:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            message = await stream.receive()
    except TimeoutError:
        raise StreamBrokenError(f"no FetchRequest within {REQUEST_TIMEOUT_S:g} s") from None
    request = decode_fetch(message or b"")
    if not isinstance(request, FetchRequest):
        raise WireError(f"a fetch begins with FetchRequest, {type(request).__name__} came")
    return request


async def _send(stream: Stream, message: bytes) -> None:
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await stream.send(message)
    except TimeoutError:
        raise StreamBrokenError(f"the joining node took nothing for {SEND_TIMEOUT_S:g} s") from None


async def _snapshot(plane: Plane, index: int, scratch: npt.NDArray[np.float32]) -> tuple[bytes, int]:
    """Copy one chunk of the view and sum it up, letting the event loop turn after each block."""
    data = plane.read_view(index, scratch).tobytes()
    crc32 = 0
    for at in range(0, len(data), BLOCK_BYTES):
        if at:
            await asyncio.sleep(0)  # a large chunk must not keep the loop from its pings
        crc32 = zlib.crc32(memoryview(data)[at : at + BLOCK_BYTES], crc32)
    return data, crc32

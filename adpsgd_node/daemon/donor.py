"""Serve this node's model to nodes that join: say whether there is one, and stream it, checksummed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adpsgd_node.core.membership.member import Phase
from adpsgd_node.core.membership.packet import Refusal, RefusalReason
from adpsgd_node.errors import StreamBrokenError, WireError
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId, SchemaHash
from adpsgd_node.net.transport import Stream
from adpsgd_node.plane import Plane
from adpsgd_node.telemetry.log import EventLog, OncePer
from adpsgd_node.wire.model import (
    FetchChunk,
    FetchHeader,
    FetchRequest,
    FetchTrailer,
    OfferRequest,
    OfferResponse,
    decode_fetch,
    decode_offer_request,
    encode_fetch,
    encode_offer_response,
)

__all__ = ["MAX_FETCHES", "Donor", "Holding"]

MAX_FETCHES = 2
"""Nodes served at once; a further one is refused and asks another donor."""
REQUEST_TIMEOUT_S = 10.0
LOG_AGAIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Holding:
    """What this node could give just now."""

    phase: Phase
    plane: Plane | None
    """None until the trainer has announced its model."""
    has_model: bool
    """The plane holds the run's parameters, all finite."""


class Donor:
    """The answering side of the Model service. Calls nobody (invariant 3)."""

    def __init__(self, identity: NodeId, run_id: RunId, holding: Callable[[], Holding]) -> None:
        self._identity = identity
        self._run_id = run_id
        self._holding = holding
        self._fetches = 0
        self._log = EventLog("donor")
        self._once = OncePer(LOG_AGAIN_S)

    async def offer(self, data: bytes) -> bytes:
        """Say what this node is doing and whether it has a model."""
        request = decode_offer_request(data)
        holding = self._holding()
        refusal = self._refusal(request, holding.plane)
        if refusal is not None:
            self._turned_away(request.source, refusal)
        differs = refusal is not None and refusal.reason is RefusalReason.SCHEMA and holding.plane is not None
        response = OfferResponse(
            source=self._identity,
            phase=holding.phase,
            has_model=holding.has_model,
            step=holding.plane.header.step if holding.plane else 0,
            refusal=refusal,
            tensors=tuple(p.spec for p in holding.plane.layout.placements) if differs and holding.plane else (),
        )
        return encode_offer_response(response)

    async def fetch(self, stream: Stream) -> None:
        """Stream the node's view chunk by chunk, each as it is when its turn comes."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                message = await stream.receive()
        except TimeoutError:
            raise StreamBrokenError(f"no FetchRequest within {REQUEST_TIMEOUT_S:g} s") from None
        request = decode_fetch(message or b"")
        if not isinstance(request, FetchRequest):
            raise WireError(f"a fetch begins with FetchRequest, {type(request).__name__} came")
        holding = self._holding()
        refusal = self._refusal(request, holding.plane)
        if refusal is None and not holding.has_model:
            refusal = Refusal(RefusalReason.FULL, "this node has no model yet")
        if refusal is None and self._fetches >= MAX_FETCHES:
            refusal = Refusal(RefusalReason.FULL, f"{MAX_FETCHES} nodes are being served already")
        if refusal is not None or holding.plane is None:
            await stream.send(encode_fetch(FetchHeader(refusal=refusal)))
            return
        self._fetches += 1
        try:
            await _send_model(stream, holding.plane)
        finally:
            self._fetches -= 1

    def _turned_away(self, source: NodeId, refusal: Refusal) -> None:
        if self._once.due((source.name, refusal.reason), asyncio.get_running_loop().time()):
            self._log.warning("refused a node that asks for the model", node=source, why=refusal)

    def _refusal(self, request: OfferRequest | FetchRequest, plane: Plane | None) -> Refusal | None:
        if request.protocol != PROTOCOL_VERSION:
            detail = f"protocol {PROTOCOL_VERSION} expected, {request.protocol} came"
            return Refusal(RefusalReason.PROTOCOL, detail)
        if request.run_id != self._run_id:
            return Refusal(RefusalReason.RUN, f"run {self._run_id!r} expected, {request.run_id!r} came")
        schema: SchemaHash | None = plane.layout.schema if plane else None
        if schema is not None and request.schema != schema:
            return Refusal(RefusalReason.SCHEMA, "the models differ")
        return None


async def _send_model(stream: Stream, plane: Plane) -> None:
    layout = plane.layout
    header = FetchHeader(chunk_count=len(layout.chunks), chunk_bytes=layout.chunk_bytes, step=plane.header.step)
    await stream.send(encode_fetch(header))
    scratch = np.empty(max(stop - start for start, stop in layout.chunks), np.float32)
    whole = 0
    for index in range(len(layout.chunks)):
        data = plane.read_view(index, scratch).tobytes()
        whole = zlib.crc32(data, whole)
        await stream.send(encode_fetch(FetchChunk(index, zlib.crc32(data), data)))
    await stream.send(encode_fetch(FetchTrailer(whole)))

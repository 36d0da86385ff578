"""Find a node's first parameters: ask all live peers, then adopt a model, found the run, or wait for the founder."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from adpsgd_node.core.adoption import Adopt, Found, Offer, Wait, decide
from adpsgd_node.core.membership.member import Member
from adpsgd_node.core.membership.packet import RefusalReason
from adpsgd_node.errors import RunMismatchError, SchemaMismatchError, StreamBrokenError, TransportError, WireError
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId
from adpsgd_node.net.transport import Method, Stream, StreamMethod, Transport
from adpsgd_node.plane import Plane
from adpsgd_node.plane.layout import describe_difference
from adpsgd_node.telemetry.log import EventLog, OncePer
from adpsgd_node.wire.model import (
    FetchChunk,
    FetchHeader,
    FetchRequest,
    FetchTrailer,
    OfferRequest,
    OfferResponse,
    decode_fetch,
    decode_offer_response,
    encode_fetch,
    encode_offer_request,
)

__all__ = ["Adopter"]

OFFER_TIMEOUT_S = 3.0
FIRST_PAUSE_S = 0.1
LARGEST_PAUSE_S = 5.0
"""Pauses before the peers are asked again: while one founds the run, and longer each time a donor fails."""
LOG_AGAIN_S = 30.0
IDLE_S = 10.0
"""A donor from which nothing comes for so long is given up."""
MAX_ASKED = 64
"""Peers asked in one round at most, drawn at random."""


@dataclass(frozen=True, slots=True)
class Adopter:
    """The asking side of the Model service, before the trainer's first step."""

    identity: NodeId
    run_id: RunId
    transport: Transport
    peers: Callable[[], Sequence[Member]]
    """The live members but this node."""
    rng: random.Random

    async def adopt_or_found(self, plane: Plane) -> NodeId | None:
        """Fill `plane.live` from a donor and return it, or return None to begin with what stands there.

        Waits as long as a smaller-named node is founding the run, or a live peer that may hold the model is silent:
        membership finds out whether it is dead. Raises `SchemaMismatchError` or `RunMismatchError`
        when the run trains another model. Until this returns nobody else writes `live`.
        """
        log, once, loop = EventLog("adopt"), OncePer(LOG_AGAIN_S), asyncio.get_running_loop()
        own_values = plane.live.copy()
        pause_s = FIRST_PAUSE_S
        while True:
            members = self.peers()
            asked = self.rng.sample(members, min(MAX_ASKED, len(members)))
            answers = await asyncio.gather(*(self._ask(member, plane) for member in asked))
            offers = [offer for offer in answers if offer is not None]
            silent = [member.id for member, answer in zip(asked, answers, strict=True) if answer is None]
            match decide(self.identity, offers, silent, self.rng):
                case Found():
                    plane.live[:] = own_values  # a fetch that broke off may have left some of a donor's
                    return None
                case Wait(whom, why):
                    if once.due(whom, loop.time()):
                        log.info("waiting for the initial parameters", whom=whom, why=why)
                case Adopt(donor):
                    address = next(member.address for member in asked if member.id == donor)
                    try:
                        await self._fetch(address, plane)
                        return donor
                    except (TransportError, WireError, TimeoutError) as error:
                        if once.due(donor, loop.time()):
                            log.warning("could not adopt a peer's model; asking again", donor=donor, cause=error)
                        pause_s = min(LARGEST_PAUSE_S, 2 * pause_s)
            await asyncio.sleep(pause_s * self.rng.uniform(0.5, 1.0))

    async def _ask(self, member: Member, plane: Plane) -> Offer | None:
        request = OfferRequest(
            protocol=PROTOCOL_VERSION, run_id=self.run_id, schema=plane.layout.schema, source=self.identity
        )
        try:
            data = await self.transport.call(
                member.address, Method.OFFER, encode_offer_request(request), timeout_s=OFFER_TIMEOUT_S
            )
            response = decode_offer_response(data)
        except (TransportError, WireError):
            return None  # membership finds out whether it is dead; asked again while we wait
        if response.source != member.id:
            return None  # another node has its address now
        self._check(response, plane)
        return Offer(response.source, response.phase, response.has_model)

    def _check(self, response: OfferResponse, plane: Plane) -> None:
        refusal = response.refusal
        if refusal is None:
            return
        if refusal.reason is not RefusalReason.SCHEMA:
            raise RunMismatchError(f"{response.source.name} refuses this node: {refusal.detail}")
        if response.has_model:
            ours = [placement.spec for placement in plane.layout.placements]
            raise SchemaMismatchError(
                f"the run {self.run_id!r} trains another model than this script: compared with {response.source.name}, "
                f"{describe_difference(ours, response.tensors)}; start this node with the same model, or another --run"
            )

    async def _fetch(self, donor: Address, plane: Plane) -> None:
        stream = await self.transport.open(donor, StreamMethod.FETCH)
        try:
            await stream.send(encode_fetch(FetchRequest(PROTOCOL_VERSION, self.run_id, plane.layout.schema)))
            await stream.end()
            await _receive_model(stream, plane)
        except BaseException:
            stream.cancel()
            raise


async def _receive_model(stream: Stream, plane: Plane) -> None:
    layout = plane.layout
    header = await _next(stream)
    if not isinstance(header, FetchHeader):
        raise WireError(f"a fetch is answered with FetchHeader, {type(header).__name__} came")
    if header.refusal is not None:
        raise StreamBrokenError(f"the donor refused: {header.refusal.detail}")
    if (header.chunk_count, header.chunk_bytes) != (len(layout.chunks), layout.chunk_bytes):
        raise SchemaMismatchError(
            f"{len(layout.chunks)} chunks of {layout.chunk_bytes} bytes expected, {header.chunk_count} of "
            f"{header.chunk_bytes} offered: set the same --chunk-bytes on every node"
        )
    whole = 0
    for index, (start, stop) in enumerate(layout.chunks):
        frame = await _next(stream)
        if not isinstance(frame, FetchChunk) or frame.index != index or len(frame.data) != 4 * (stop - start):
            raise WireError(f"chunk {index} of the donor's model did not come as it should")
        if zlib.crc32(frame.data) != frame.crc32:
            raise WireError(f"chunk {index} of the donor's model fails its checksum")
        values = np.frombuffer(frame.data, np.float32)
        if not np.isfinite(values).all():
            raise WireError(f"chunk {index} of the donor's model holds values that are not finite")
        whole = zlib.crc32(frame.data, whole)
        plane.live[start:stop] = values
    trailer = await _next(stream)
    if not isinstance(trailer, FetchTrailer) or trailer.crc32 != whole:
        raise WireError("the donor's model fails its checksum")


async def _next(stream: Stream) -> object:
    async with asyncio.timeout(IDLE_S):
        message = await stream.receive()
    if message is None:
        raise StreamBrokenError("the donor ended the stream early")
    return decode_fetch(message)

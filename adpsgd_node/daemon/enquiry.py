"""Ask the live peers what they have: a live model, or a checkpoint of the run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adpsgd_node.core.adoption import Offer, Standing
from adpsgd_node.core.membership.member import Member
from adpsgd_node.core.membership.packet import RefusalReason
from adpsgd_node.errors import RunMismatchError, SchemaMismatchError, TransportError, WireError
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId
from adpsgd_node.net.transport import Method, Transport
from adpsgd_node.plane import Layout
from adpsgd_node.plane.layout import describe_difference
from adpsgd_node.wire.model import OfferRequest, OfferResponse, decode_offer_response, encode_offer_request

__all__ = ["Enquiry"]

OFFER_TIMEOUT_S = 3.0
MAX_ASKED = 64
"""Peers asked at once, in random order; the others after them, until one has a model."""


@dataclass(frozen=True, slots=True)
class Enquiry:
    """The asking side of `Model/Offer`."""

    identity: NodeId
    run_id: RunId
    algorithm: str
    transport: Transport
    rng: random.Random
    askers: Callable[[], frozenset[NodeId]] = frozenset
    """Who has asked this node since the last call."""

    async def ask(self, members: Sequence[Member], layout: Layout) -> tuple[list[Offer], list[NodeId]]:
        """Return the offers of those who answer, and who does not.

        Raises `SchemaMismatchError` or `RunMismatchError` when the run trains another model.
        """
        order = self.rng.sample(members, len(members))
        offers: list[Offer] = []
        silent: list[NodeId] = []
        for at in range(0, len(order), MAX_ASKED):
            asked = order[at : at + MAX_ASKED]
            answers = await asyncio.gather(*(self._ask(member, layout) for member in asked))
            offers += [offer for offer in answers if offer is not None]
            silent += [member.id for member, answer in zip(asked, answers, strict=True) if answer is None]
            if any(offer.has_model for offer in offers):
                break
        return offers, silent

    async def _ask(self, member: Member, layout: Layout) -> Offer | None:
        request = OfferRequest(
            protocol=PROTOCOL_VERSION,
            run_id=self.run_id,
            schema=layout.schema,
            source=self.identity,
            algorithm=self.algorithm,
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
        self._check(response, layout)
        standing = Standing(response.checkpoint_samples, response.checkpoint_steps) if response.has_checkpoint else None
        return Offer(response.source, response.phase, response.has_model, standing)

    def _check(self, response: OfferResponse, layout: Layout) -> None:
        refusal = response.refusal
        if refusal is None:
            return
        if refusal.reason is not RefusalReason.SCHEMA:
            raise RunMismatchError(f"{response.source.name} refuses this node: {refusal.detail}")
        if response.has_model:
            ours = [placement.spec for placement in layout.placements]
            raise SchemaMismatchError(
                f"the run {self.run_id!r} trains another model than this script: compared with {response.source.name}, "
                f"{describe_difference(ours, response.tensors)}; start this node with the same model, or another --run"
            )

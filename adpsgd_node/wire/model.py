"""Encode and decode how a joining node finds the run's parameters: who has them, offered to those that ask."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from adpsgd_node.core.membership.member import Phase
from adpsgd_node.core.membership.packet import Refusal, RefusalReason
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.errors import WireError
from adpsgd_node.ids import NodeId, RunId, SchemaHash
from adpsgd_node.wire import check, limits
from adpsgd_node.wire.v1 import membership_pb2, model_pb2

__all__ = [
    "OfferRequest",
    "OfferResponse",
    "decode_offer_request",
    "decode_offer_response",
    "decode_refusal",
    "encode_offer_request",
    "encode_offer_response",
    "encode_refusal",
]

MAX_LISTED_TENSORS = 10_000
"""Tensors that an offer lists at most, so that the caller can name the first difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferRequest:
    """Asks a live peer whether it has a model, and which."""

    protocol: int
    run_id: RunId
    schema: SchemaHash
    source: NodeId
    algorithm: str
    """As in `--algorithm`, with `--servers`: one line of text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferResponse:
    source: NodeId
    phase: Phase
    has_model: bool
    step: int = 0
    refusal: Refusal | None = None
    tensors: tuple[TensorSpec, ...] = ()
    """The answering node's tensors when its schema differs from the caller's."""
    has_checkpoint: bool = False
    """It has no live model, but could go on from a checkpoint; how far the run was when that was written:"""
    checkpoint_steps: int = 0
    checkpoint_samples: int = 0


def encode_offer_request(request: OfferRequest) -> bytes:
    source = membership_pb2.Member(name=request.source.name, boot=request.source.boot)
    return model_pb2.OfferRequest(
        protocol=request.protocol,
        run_id=request.run_id,
        schema=request.schema,
        source=source,
        algorithm=request.algorithm,
    ).SerializeToString()


def decode_offer_request(data: bytes) -> OfferRequest:
    """Raises `WireError`."""
    message = model_pb2.OfferRequest()
    _parse(message, data)
    return OfferRequest(
        protocol=message.protocol,
        run_id=check.run_id(message.run_id),
        schema=check.schema_hash(message.schema),
        source=check.node_id(message.source.name, message.source.boot, "source"),
        algorithm=check.line(message.algorithm, "algorithm"),
    )


def encode_offer_response(response: OfferResponse) -> bytes:
    message = model_pb2.OfferResponse(
        has_model=response.has_model,
        step=response.step,
        has_checkpoint=response.has_checkpoint,
        checkpoint_steps=response.checkpoint_steps,
        checkpoint_samples=response.checkpoint_samples,
    )
    message.source.name, message.source.boot = response.source.name, response.source.boot
    message.source.phase = membership_pb2.Phase.Name(response.phase)  # type: ignore[assignment]
    if response.refusal is not None:
        message.refusal.CopyFrom(encode_refusal(response.refusal))
    for spec in response.tensors[:MAX_LISTED_TENSORS]:
        segment = model_pb2.Segment.Name(spec.segment)
        message.tensors.add(name=spec.name, shape=spec.shape, dtype=spec.dtype, segment=segment)
    return message.SerializeToString()


def decode_offer_response(data: bytes) -> OfferResponse:
    """Raises `WireError`."""
    message = model_pb2.OfferResponse()
    _parse(message, data)
    check.at_most(len(message.tensors), MAX_LISTED_TENSORS, "tensors of an offer")
    return OfferResponse(
        source=check.node_id(message.source.name, message.source.boot, "source"),
        phase=check.chosen(Phase, message.source.phase, "phase"),
        has_model=message.has_model,
        step=message.step,
        refusal=decode_refusal(message.refusal) if message.HasField("refusal") else None,
        tensors=tuple(
            TensorSpec(
                check.short_text(spec.name, "tensor name"),
                tuple(spec.shape),
                check.short_text(spec.dtype, "dtype"),
                check.chosen(Segment, spec.segment, "segment"),
            )
            for spec in message.tensors
        ),
        has_checkpoint=message.has_checkpoint,
        checkpoint_steps=check.at_most(message.checkpoint_steps, limits.MAX_TOTAL, "checkpoint_steps"),
        checkpoint_samples=check.at_most(message.checkpoint_samples, limits.MAX_TOTAL, "checkpoint_samples"),
    )


def _parse(message: model_pb2.OfferRequest | model_pb2.OfferResponse, data: bytes) -> None:
    check.at_most(len(data), limits.MAX_MESSAGE_BYTES, f"length of {type(message).__name__}")
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise WireError(f"bytes that are no {type(message).__name__} came: {error}") from None


def encode_refusal(refusal: Refusal) -> membership_pb2.Refusal:
    reason = membership_pb2.RefusalReason.Name(refusal.reason)
    return membership_pb2.Refusal(reason=reason, detail=refusal.detail[: limits.MAX_DETAIL_LENGTH])


def decode_refusal(message: membership_pb2.Refusal) -> Refusal:
    reason = check.chosen(RefusalReason, message.reason, "refusal reason")
    return Refusal(reason, check.short_text(message.detail, "detail"))

"""Encode and decode how a joining node comes to the run's parameters: offers and fetches."""

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
    "FetchChunk",
    "FetchFrame",
    "FetchHeader",
    "FetchRequest",
    "FetchTrailer",
    "OfferRequest",
    "OfferResponse",
    "decode_fetch",
    "decode_offer_request",
    "decode_offer_response",
    "encode_fetch",
    "encode_offer_request",
    "encode_offer_response",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferResponse:
    source: NodeId
    phase: Phase
    has_model: bool
    step: int = 0
    refusal: Refusal | None = None
    tensors: tuple[TensorSpec, ...] = ()
    """The answering node's tensors when its schema differs from the caller's."""


@dataclass(frozen=True, slots=True)
class FetchRequest:
    protocol: int
    run_id: RunId
    schema: SchemaHash


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchHeader:
    refusal: Refusal | None = None
    chunk_count: int = 0
    chunk_bytes: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True)
class FetchChunk:
    index: int
    crc32: int
    data: bytes
    """fp32, little endian."""


@dataclass(frozen=True, slots=True)
class FetchTrailer:
    crc32: int
    """Of all data, in order."""


FetchFrame = FetchRequest | FetchHeader | FetchChunk | FetchTrailer


def encode_offer_request(request: OfferRequest) -> bytes:
    source = membership_pb2.Member(name=request.source.name, boot=request.source.boot)
    return model_pb2.OfferRequest(
        protocol=request.protocol, run_id=request.run_id, schema=request.schema, source=source
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
    )


def encode_offer_response(response: OfferResponse) -> bytes:
    message = model_pb2.OfferResponse(has_model=response.has_model, step=response.step)
    message.source.name, message.source.boot = response.source.name, response.source.boot
    message.source.phase = membership_pb2.Phase.Name(response.phase)  # type: ignore[assignment]
    if response.refusal is not None:
        message.refusal.CopyFrom(_refusal_message(response.refusal))
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
        refusal=_refusal(message.refusal) if message.HasField("refusal") else None,
        tensors=tuple(
            TensorSpec(
                check.short_text(spec.name, "tensor name"),
                tuple(spec.shape),
                check.short_text(spec.dtype, "dtype"),
                check.chosen(Segment, spec.segment, "segment"),
            )
            for spec in message.tensors
        ),
    )


def encode_fetch(frame: FetchFrame) -> bytes:
    match frame:
        case FetchRequest(protocol, run_id, schema):
            request = model_pb2.FetchRequest(protocol=protocol, run_id=run_id, schema=schema)
            message = model_pb2.FetchFrame(request=request)
        case FetchHeader():
            header = model_pb2.FetchHeader(
                chunk_count=frame.chunk_count, chunk_bytes=frame.chunk_bytes, step=frame.step
            )
            if frame.refusal is not None:
                header.refusal.CopyFrom(_refusal_message(frame.refusal))
            message = model_pb2.FetchFrame(header=header)
        case FetchChunk(index, crc32, data):
            message = model_pb2.FetchFrame(chunk=model_pb2.FetchChunk(index=index, crc32=crc32, data=data))
        case FetchTrailer(crc32):
            message = model_pb2.FetchFrame(trailer=model_pb2.FetchTrailer(crc32=crc32))
    return message.SerializeToString()


def decode_fetch(data: bytes) -> FetchFrame:
    """Raises `WireError`."""
    message = model_pb2.FetchFrame()
    _parse(message, data)
    match message.WhichOneof("frame"):
        case "request":
            request = message.request
            return FetchRequest(request.protocol, check.run_id(request.run_id), check.schema_hash(request.schema))
        case "header":
            header = message.header
            return FetchHeader(
                refusal=_refusal(header.refusal) if header.HasField("refusal") else None,
                chunk_count=check.at_most(header.chunk_count, limits.MAX_CHUNK_COUNT, "chunk_count"),
                chunk_bytes=check.at_most(header.chunk_bytes, limits.MAX_CHUNK_BYTES, "chunk_bytes"),
                step=header.step,
            )
        case "chunk":
            check.at_most(len(message.chunk.data), limits.MAX_CHUNK_BYTES, "length of a chunk")
            return FetchChunk(message.chunk.index, message.chunk.crc32, message.chunk.data)
        case "trailer":
            return FetchTrailer(message.trailer.crc32)
        case _:
            raise WireError("a fetch frame without content came")


def _parse(message: model_pb2.OfferRequest | model_pb2.OfferResponse | model_pb2.FetchFrame, data: bytes) -> None:
    check.at_most(len(data), limits.MAX_MESSAGE_BYTES, f"length of {type(message).__name__}")
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise WireError(f"bytes that are no {type(message).__name__} came: {error}") from None


def _refusal_message(refusal: Refusal) -> membership_pb2.Refusal:
    reason = membership_pb2.RefusalReason.Name(refusal.reason)
    return membership_pb2.Refusal(reason=reason, detail=refusal.detail[: limits.MAX_DETAIL_LENGTH])


def _refusal(message: membership_pb2.Refusal) -> Refusal:
    reason = check.chosen(RefusalReason, message.reason, "refusal reason")
    return Refusal(reason, check.short_text(message.detail, "detail"))

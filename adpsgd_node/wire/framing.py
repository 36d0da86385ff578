"""Turn exchange frames into bytes of `ExchangeFrame` and back.

Chunks take a path of their own, because protobuf copies `bytes` fields twice: the fields around the payload are
written by hand, the payload is copied once, and it is read in place. What is written is valid protobuf of the published
schema; what the hand-written parser does not recognise at once goes to the generated one.

    message      = 0x22 length(chunk) chunk
    chunk        = [0x08 index] [0x10 applied_through] [0x25 scale] 0x1a length(data) data
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message

from adpsgd_node.core.exchange.frame import (
    MAX_ROUND,
    Abort,
    AbortReason,
    Accept,
    Chunk,
    Close,
    CodecName,
    Decline,
    DeclineReason,
    Frame,
    Open,
    Settle,
    Settled,
    SettleOutcome,
)
from adpsgd_node.errors import WireError
from adpsgd_node.wire import check, limits
from adpsgd_node.wire.v1 import exchange_pb2 as pb
from adpsgd_node.wire.varint import MAX_LENGTH_BYTES, encode_varint, read_varint

__all__ = [
    "DATA_ALIGNMENT",
    "Buffer",
    "EncodedChunk",
    "checked_chunk",
    "decode_frame",
    "decode_settle",
    "decode_settled",
    "encode_chunk",
    "encode_frame",
    "encode_settle",
    "encode_settled",
    "read_chunk",
]

ProtoMessage = TypeVar("ProtoMessage", bound=Message)

Buffer = bytes | memoryview | npt.NDArray[Any]
"""Contiguous memory to send."""

DATA_ALIGNMENT = 4
"""Offset of a chunk's data in its message is a multiple of this: numpy is 30-60 % slower on unaligned fp32."""

_CHUNK_TAG = 0x22
_INDEX_TAG = 0x08
_APPLIED_TAG = 0x10
_SCALE_TAG = 0x25
_SCALE_BYTES = 4
_DATA_TAG = 0x1A
_MAX_UINT32 = 0xFFFFFFFF


class EncodedChunk(NamedTuple):
    message: bytes
    data: memoryview
    """The payload inside `message`: the snapshot of what is sent."""


def encode_chunk(index: int, applied_through: int, payload: Buffer, scale: float = 1.0) -> EncodedChunk:
    """Build the message of one chunk around `payload`, copying it once. scale: a float32; 1 is left out."""
    source = payload.data if isinstance(payload, np.ndarray) else memoryview(payload)
    data_bytes = source.nbytes
    assert data_bytes <= limits.MAX_CHUNK_BYTES, f"chunk {index} has {data_bytes} bytes"
    index_field = bytes((_INDEX_TAG,)) + encode_varint(index)
    scale_field = b"" if scale == 1.0 else struct.pack("<Bf", _SCALE_TAG, scale)
    data_header = scale_field + bytes((_DATA_TAG,)) + encode_varint(data_bytes)
    applied_length = 1
    while True:
        applied_field = bytes((_APPLIED_TAG,)) + encode_varint(applied_through, applied_length)
        fields = index_field + applied_field + data_header
        header = bytes((_CHUNK_TAG,)) + encode_varint(len(fields) + data_bytes) + fields
        if len(header) % DATA_ALIGNMENT == 0:
            break
        applied_length = len(applied_field)  # one more byte than the varint had
    message = b"".join((header, source))
    return EncodedChunk(message, memoryview(message)[len(header) :])


def encode_frame(frame: Frame) -> bytes:
    """Encode any frame; chunks by `encode_chunk`."""
    match frame:
        case Chunk(index, applied_through, data, scale):
            return encode_chunk(index, applied_through, data, scale).message
        case Open():
            message = pb.ExchangeFrame(open=_open_to_proto(frame))
        case Accept(step, progress, round_):
            entries = check.progress_to_proto(progress)
            message = pb.ExchangeFrame(accept=pb.Accept(step=step, progress=entries, round=round_))
        case Decline(reason, detail):
            shortened = detail[: limits.MAX_DETAIL_LENGTH]
            message = pb.ExchangeFrame(decline=pb.Decline(reason=pb.DeclineReason.Name(reason), detail=shortened))
        case Abort(reason, index):
            message = pb.ExchangeFrame(abort=pb.Abort(reason=pb.AbortReason.Name(reason), index=index))
        case Close(applied_through):
            message = pb.ExchangeFrame(close=pb.Close(applied_through=applied_through))
    return message.SerializeToString()


def decode_frame(message: bytes) -> Frame:
    """Decode one frame; a chunk's data is a view into `message`. Raises `WireError`, and nothing else."""
    check.at_most(len(message), limits.MAX_MESSAGE_BYTES, "length of an exchange frame")
    return read_chunk(message) or _parse_frame(message)


def encode_settle(settle: Settle) -> bytes:
    return pb.SettleRequest(
        run_id=settle.run_id,
        initiator=settle.initiator.name,
        boot=settle.initiator.boot,
        responder=settle.responder.name,
        responder_boot=settle.responder.boot,
        exchange_id=settle.exchange_id,
        applied_through=settle.applied_through,
    ).SerializeToString()


def decode_settle(message: bytes) -> Settle:
    proto = _parse(pb.SettleRequest, message)
    return Settle(
        run_id=check.run_id(proto.run_id),
        initiator=check.node_id(proto.initiator, proto.boot, "initiator"),
        responder=check.node_id(proto.responder, proto.responder_boot, "responder"),
        exchange_id=proto.exchange_id,
        applied_through=check.at_most(proto.applied_through, limits.MAX_CHUNK_COUNT, "applied_through"),
    )


def encode_settled(settled: Settled) -> bytes:
    outcome = pb.SettleOutcome.Name(settled.outcome)
    return pb.SettleResponse(outcome=outcome, reverted=settled.reverted).SerializeToString()


def decode_settled(message: bytes) -> Settled:
    proto = _parse(pb.SettleResponse, message)
    return Settled(
        outcome=check.chosen(SettleOutcome, proto.outcome, "outcome"),
        reverted=check.at_most(proto.reverted, limits.MAX_CHUNK_COUNT, "reverted"),
    )


def read_chunk(message: bytes) -> Chunk | None:
    """Read a chunk whose fields stand in the written order; None: something else, or not valid at all."""
    if not message or message[0] != _CHUNK_TAG:
        return None
    values = {_INDEX_TAG: 0, _APPLIED_TAG: 0}
    try:
        length, at = read_varint(message, 1, MAX_LENGTH_BYTES)
        if at + length != len(message):
            return None
        for tag in values:
            if message[at] == tag:
                values[tag], at = read_varint(message, at + 1)
        scale = 0.0
        if message[at] == _SCALE_TAG:
            (scale,) = struct.unpack_from("<f", message, at + 1)
            at += 1 + _SCALE_BYTES
        if message[at] != _DATA_TAG:
            return None
        length, at = read_varint(message, at + 1, MAX_LENGTH_BYTES)
    except (IndexError, WireError, struct.error):
        return None
    index, applied_through = values.values()
    if at + length != len(message) or max(index, applied_through) > _MAX_UINT32:
        return None
    return checked_chunk(index, applied_through, memoryview(message)[at:], scale)


def checked_chunk(index: int, applied_through: int, data: memoryview, scale: float) -> Chunk:
    """Return a chunk whose fields are within their limits. Raises `WireError`."""
    check.at_most(index, limits.MAX_CHUNK_COUNT - 1, "chunk index")
    check.at_most(applied_through, limits.MAX_CHUNK_COUNT, "applied_through")
    check.at_most(data.nbytes, limits.MAX_CHUNK_BYTES, "bytes of a chunk")
    if not 0.0 <= scale <= 1.0:
        raise WireError(f"chunk.scale: expected a number above 0, at most 1, got {scale:g}")
    return Chunk(index, applied_through, data, scale or 1.0)


def _parse_frame(message: bytes) -> Frame:
    proto = _parse(pb.ExchangeFrame, message)
    match proto.WhichOneof("frame"):
        case "open":
            return _open_from_proto(proto.open)
        case "accept":
            accept = proto.accept
            progress = check.progress_from_proto(accept.progress, len(accept.progress))
            return Accept(accept.step, progress, check.at_most(accept.round, MAX_ROUND, "accept.round"))
        case "decline":
            reason = check.chosen(DeclineReason, proto.decline.reason, "decline.reason")
            return Decline(reason, check.short_text(proto.decline.detail, "decline.detail"))
        case "chunk":
            chunk = proto.chunk
            return checked_chunk(chunk.index, chunk.applied_through, memoryview(chunk.data), chunk.scale)
        case "abort":
            index = check.at_most(proto.abort.index, limits.MAX_CHUNK_COUNT - 1, "abort.index")
            return Abort(check.chosen(AbortReason, proto.abort.reason, "abort.reason"), index)
        case "close":
            return Close(check.at_most(proto.close.applied_through, limits.MAX_CHUNK_COUNT, "applied_through"))
        case _:
            raise WireError("an exchange frame of no known kind")


def _open_to_proto(frame: Open) -> pb.Open:
    return pb.Open(
        protocol=frame.protocol,
        run_id=frame.run_id,
        schema=frame.schema,
        initiator=frame.initiator.name,
        boot=frame.initiator.boot,
        exchange_id=frame.exchange_id,
        responder=frame.responder.name,
        responder_boot=frame.responder.boot,
        codec=pb.Codec.Name(frame.codec),
        chunk_bytes=frame.chunk_bytes,
        chunk_count=frame.chunk_count,
        step=frame.step,
        progress=check.progress_to_proto(frame.progress),
        clip=frame.clip,
        round=frame.round,
    )


def _open_from_proto(proto: pb.Open) -> Open:
    return Open(
        protocol=proto.protocol,
        run_id=check.run_id(proto.run_id),
        schema=check.schema_hash(proto.schema),
        initiator=check.node_id(proto.initiator, proto.boot, "initiator"),
        responder=check.node_id(proto.responder, proto.responder_boot, "responder"),
        exchange_id=proto.exchange_id,
        codec=check.chosen(CodecName, proto.codec, "codec"),
        chunk_bytes=check.at_most(proto.chunk_bytes, limits.MAX_CHUNK_BYTES, "chunk_bytes"),
        chunk_count=check.at_most(proto.chunk_count, limits.MAX_CHUNK_COUNT, "chunk_count"),
        step=proto.step,
        progress=check.progress_from_proto(proto.progress, len(proto.progress)),
        clip=_clip(proto.clip),
        round=check.at_most(proto.round, MAX_ROUND, "open.round"),
    )


def _clip(clip: float) -> float:
    if not 0.0 <= clip < math.inf:
        raise WireError(f"open.clip: expected a number of at least 0, got {clip:g}")
    return clip


def _parse(kind: type[ProtoMessage], message: bytes) -> ProtoMessage:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise WireError(f"no valid {kind.DESCRIPTOR.name} in {len(message)} bytes: {error}") from error

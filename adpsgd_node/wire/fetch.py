"""Encode and decode the frames of a fetch: a joining node asks for a range of the model's chunks and gets them.

Chunks take a path of their own, as those of an exchange do (`wire.framing`): protobuf would copy their data twice.

    message      = 0x1a length(chunk) chunk
    chunk        = [0x08 index] 0x15 crc32 0x1a length(data) data
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from adpsgd_node.core.membership.packet import Refusal
from adpsgd_node.errors import WireError
from adpsgd_node.ids import RunId, SchemaHash
from adpsgd_node.wire import check, limits
from adpsgd_node.wire.framing import DATA_ALIGNMENT
from adpsgd_node.wire.model import decode_refusal, encode_refusal
from adpsgd_node.wire.v1 import model_pb2
from adpsgd_node.wire.varint import MAX_LENGTH_BYTES, encode_varint, read_varint

__all__ = [
    "FetchChunk",
    "FetchFrame",
    "FetchHeader",
    "FetchRequest",
    "FetchTrailer",
    "decode_fetch",
    "encode_fetch",
    "encode_fetch_chunk",
]

_CHUNK_TAG = 0x1A
_INDEX_TAG = 0x08
_CRC32_TAG = 0x15
_DATA_TAG = 0x1A
_CRC32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Asks for a range of chunks; first on its stream, and alone there."""

    protocol: int
    run_id: RunId
    schema: SchemaHash
    first_chunk: int = 0
    chunk_count: int = 0
    """0: all from `first_chunk` on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchHeader:
    refusal: Refusal | None = None
    chunk_count: int = 0
    """Of the whole model."""
    chunk_bytes: int = 0
    step: int = 0
    retry_after_ms: int = 0
    """With a refusal that time mends: when to ask again; 0: asking again is of no use."""


@dataclass(frozen=True, slots=True)
class FetchChunk:
    index: int
    crc32: int
    data: bytes | memoryview
    """fp32, little endian; decoded, a view into the message."""


@dataclass(frozen=True, slots=True)
class FetchTrailer:
    crc32: int
    """Of the `crc32` fields of the range's chunks, in order, each as 4 bytes little endian."""


FetchFrame = FetchRequest | FetchHeader | FetchChunk | FetchTrailer


def encode_fetch(frame: FetchFrame) -> bytes:
    match frame:
        case FetchRequest():
            request = model_pb2.FetchRequest(
                protocol=frame.protocol,
                run_id=frame.run_id,
                schema=frame.schema,
                first_chunk=frame.first_chunk,
                chunk_count=frame.chunk_count,
            )
            message = model_pb2.FetchFrame(request=request)
        case FetchHeader():
            header = model_pb2.FetchHeader(
                chunk_count=frame.chunk_count,
                chunk_bytes=frame.chunk_bytes,
                step=frame.step,
                retry_after_ms=min(frame.retry_after_ms, limits.MAX_RETRY_AFTER_MS),
            )
            if frame.refusal is not None:
                header.refusal.CopyFrom(encode_refusal(frame.refusal))
            message = model_pb2.FetchFrame(header=header)
        case FetchChunk(index, crc32, data):
            return encode_fetch_chunk(index, crc32, data)
        case FetchTrailer(crc32):
            message = model_pb2.FetchFrame(trailer=model_pb2.FetchTrailer(crc32=crc32))
    return message.SerializeToString()


def encode_fetch_chunk(index: int, crc32: int, data: bytes | memoryview) -> bytes:
    """Build the message of one chunk around `data`, copying it once."""
    source = memoryview(data)
    assert source.nbytes <= limits.MAX_CHUNK_BYTES, f"chunk {index} has {source.nbytes} bytes"
    crc32_field = bytes((_CRC32_TAG,)) + _CRC32.pack(crc32)
    data_header = bytes((_DATA_TAG,)) + encode_varint(source.nbytes)
    index_length = 1
    while True:
        index_field = bytes((_INDEX_TAG,)) + encode_varint(index, index_length)
        fields = index_field + crc32_field + data_header
        header = bytes((_CHUNK_TAG,)) + encode_varint(len(fields) + source.nbytes) + fields
        if len(header) % DATA_ALIGNMENT == 0:
            return b"".join((header, source))
        index_length = len(index_field)  # one more byte than the varint had


def decode_fetch(data: bytes) -> FetchFrame:
    """Decode one frame; a chunk's data may be a view into `data`. Raises `WireError`."""
    check.at_most(len(data), limits.MAX_MESSAGE_BYTES, "length of FetchFrame")
    return _read_chunk(data) or _parse_fetch(data)


def _read_chunk(message: bytes) -> FetchChunk | None:
    """Read a chunk whose fields stand in the written order; None: something else, or not valid at all."""
    if not message or message[0] != _CHUNK_TAG:
        return None
    index = 0
    try:
        length, at = read_varint(message, 1, MAX_LENGTH_BYTES)
        if at + length != len(message):
            return None
        if message[at] == _INDEX_TAG:
            index, at = read_varint(message, at + 1)
        if message[at] != _CRC32_TAG or message[at + 5] != _DATA_TAG:
            return None
        (crc32,) = _CRC32.unpack_from(message, at + 1)
        length, at = read_varint(message, at + 6, MAX_LENGTH_BYTES)
    except (IndexError, struct.error, WireError):
        return None
    return _chunk(index, crc32, memoryview(message)[at:]) if at + length == len(message) else None


def _chunk(index: int, crc32: int, data: memoryview) -> FetchChunk:
    check.at_most(index, limits.MAX_CHUNK_COUNT - 1, "chunk index")
    check.at_most(data.nbytes, limits.MAX_CHUNK_BYTES, "length of a chunk")
    return FetchChunk(index, crc32, data)


def _parse_fetch(data: bytes) -> FetchFrame:
    message = model_pb2.FetchFrame()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise WireError(f"bytes that are no FetchFrame came: {error}") from None
    match message.WhichOneof("frame"):
        case "request":
            return _request(message.request)
        case "header":
            header = message.header
            return FetchHeader(
                refusal=decode_refusal(header.refusal) if header.HasField("refusal") else None,
                chunk_count=check.at_most(header.chunk_count, limits.MAX_CHUNK_COUNT, "chunk_count"),
                chunk_bytes=check.at_most(header.chunk_bytes, limits.MAX_CHUNK_BYTES, "chunk_bytes"),
                step=header.step,
                retry_after_ms=check.at_most(header.retry_after_ms, limits.MAX_RETRY_AFTER_MS, "retry_after_ms"),
            )
        case "chunk":
            return _chunk(message.chunk.index, message.chunk.crc32, memoryview(message.chunk.data))
        case "trailer":
            return FetchTrailer(message.trailer.crc32)
        case _:
            raise WireError("a fetch frame without content came")


def _request(message: model_pb2.FetchRequest) -> FetchRequest:
    check.at_most(message.first_chunk + message.chunk_count, limits.MAX_CHUNK_COUNT, "end of the range of chunks")
    return FetchRequest(
        message.protocol,
        check.run_id(message.run_id),
        check.schema_hash(message.schema),
        message.first_chunk,
        message.chunk_count,
    )

"""Frames of a fetch survive the wire; what exceeds a limit does not pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from adpsgd_node.core.membership.packet import Refusal, RefusalReason
from adpsgd_node.errors import OversizeError, WireError
from adpsgd_node.ids import RunId, SchemaHash
from adpsgd_node.wire import limits
from adpsgd_node.wire.fetch import (
    FetchChunk,
    FetchFrame,
    FetchHeader,
    FetchRequest,
    FetchTrailer,
    decode_fetch,
    encode_fetch,
    encode_fetch_chunk,
)
from adpsgd_node.wire.framing import DATA_ALIGNMENT
from adpsgd_node.wire.v1 import model_pb2 as pb

SCHEMA = SchemaHash(b"s" * limits.SCHEMA_BYTES)
MOST = 2**64 - 1
CRC = st.integers(0, 2**32 - 1)

refusals = st.builds(Refusal, st.sampled_from(RefusalReason), st.text(max_size=50))
chunks = st.builds(FetchChunk, st.integers(0, limits.MAX_CHUNK_COUNT - 1), CRC, st.binary(max_size=300))
ranges = st.integers(0, limits.MAX_CHUNK_COUNT).flatmap(
    lambda first: st.tuples(st.just(first), st.integers(0, limits.MAX_CHUNK_COUNT - first))
)
requests = st.builds(
    lambda protocol, chunks: FetchRequest(protocol, RunId("run"), SCHEMA, *chunks), st.integers(0, 2**32 - 1), ranges
)
headers = st.builds(
    FetchHeader,
    refusal=st.none() | refusals,
    chunk_count=st.integers(0, limits.MAX_CHUNK_COUNT),
    chunk_bytes=st.integers(0, limits.MAX_CHUNK_BYTES),
    step=st.integers(0, MOST),
    retry_after_ms=st.integers(0, limits.MAX_RETRY_AFTER_MS),
)
frames = st.one_of(chunks, requests, headers, st.builds(FetchTrailer, CRC))


def comparable(frame: FetchFrame) -> FetchFrame:
    return replace(frame, data=bytes(frame.data)) if isinstance(frame, FetchChunk) else frame


@given(frames)
def test_every_frame_survives_the_wire(frame: FetchFrame) -> None:
    assert comparable(decode_fetch(encode_fetch(frame))) == frame


@given(chunks)
def test_the_generated_parser_reads_every_chunk_framed_by_hand(chunk: FetchChunk) -> None:
    message = encode_fetch_chunk(chunk.index, chunk.crc32, chunk.data)
    proto = pb.FetchFrame.FromString(message)
    assert proto.WhichOneof("frame") == "chunk"
    assert FetchChunk(proto.chunk.index, proto.chunk.crc32, proto.chunk.data) == chunk
    assert (len(message) - len(chunk.data)) % DATA_ALIGNMENT == 0


@given(chunks)
def test_every_chunk_of_the_generated_code_is_read(chunk: FetchChunk) -> None:
    proto = pb.FetchChunk(index=chunk.index, crc32=chunk.crc32, data=bytes(chunk.data))
    assert comparable(decode_fetch(pb.FetchFrame(chunk=proto).SerializeToString())) == chunk


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda rest: b"\x1a" + rest))
@example(b"\x1a\x05\x08")
@example(b"\x1a\x02\x15\x00")
@example(b"\x1a\x09\x08\x01\x15\x00\x00\x00\x00\x1a\x05")
def test_garbage_is_refused_or_means_what_the_generated_parser_reads(message: bytes) -> None:
    try:
        frame = decode_fetch(message)
    except WireError:
        return
    try:
        proto = pb.FetchFrame.FromString(message)
    except DecodeError:
        raise AssertionError(f"{message!r} is no FetchFrame, but was read as {frame}") from None
    if isinstance(frame, FetchChunk):
        assert comparable(frame) == FetchChunk(proto.chunk.index, proto.chunk.crc32, proto.chunk.data)


@pytest.mark.parametrize(
    "frame",
    [
        pb.FetchFrame(request=pb.FetchRequest(run_id="r", schema=SCHEMA, first_chunk=1, chunk_count=1 << 20)),
        pb.FetchFrame(request=pb.FetchRequest(run_id="r", schema=SCHEMA, first_chunk=(1 << 20) + 1)),
        pb.FetchFrame(header=pb.FetchHeader(retry_after_ms=limits.MAX_RETRY_AFTER_MS + 1)),
        pb.FetchFrame(header=pb.FetchHeader(chunk_count=limits.MAX_CHUNK_COUNT + 1)),
        pb.FetchFrame(chunk=pb.FetchChunk(index=limits.MAX_CHUNK_COUNT, crc32=1, data=b"abcd")),
        pb.FetchFrame(chunk=pb.FetchChunk(index=0, crc32=1, data=bytes(limits.MAX_CHUNK_BYTES + 4))),
    ],
    ids=["range", "first chunk", "retry_after_ms", "chunk count", "chunk index", "chunk length"],
)
def test_what_exceeds_a_limit_is_refused(frame: pb.FetchFrame) -> None:
    with pytest.raises(OversizeError):
        decode_fetch(frame.SerializeToString())


def test_a_donor_never_asks_for_more_patience_than_a_joiner_accepts() -> None:
    frame = decode_fetch(encode_fetch(FetchHeader(retry_after_ms=10**9)))
    assert isinstance(frame, FetchHeader)
    assert frame.retry_after_ms == limits.MAX_RETRY_AFTER_MS

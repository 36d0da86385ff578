"""The hand-written framing and the generated protobuf code agree on all bytes."""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from adpsgd_node.core.exchange.frame import Chunk, Frame, Settle, Settled
from adpsgd_node.errors import WireError
from adpsgd_node.wire.framing import (
    DATA_ALIGNMENT,
    decode_frame,
    decode_settle,
    decode_settled,
    encode_chunk,
    encode_frame,
    encode_settle,
    encode_settled,
)
from adpsgd_node.wire.v1 import exchange_pb2 as pb
from adpsgd_node.wire.varint import encode_varint
from support.exchange_frames import chunks, frames, settleds, settles


def comparable(frame: Frame) -> Frame:
    return replace(frame, data=bytes(frame.data)) if isinstance(frame, Chunk) else frame


def generated(chunk: Chunk) -> bytes:
    scale = 0.0 if chunk.scale == 1.0 else chunk.scale
    proto = pb.Chunk(index=chunk.index, applied_through=chunk.applied_through, data=bytes(chunk.data), scale=scale)
    return pb.ExchangeFrame(chunk=proto).SerializeToString()


def read(proto: pb.Chunk) -> Chunk:
    """Read a chunk as the generated parser sees it."""
    return Chunk(proto.index, proto.applied_through, proto.data, proto.scale or 1.0)


@given(chunks)
def test_generated_parser_reads_every_fast_framed_chunk(chunk: Chunk) -> None:
    message = encode_chunk(chunk.index, chunk.applied_through, chunk.data, chunk.scale).message
    proto = pb.ExchangeFrame.FromString(message)
    assert proto.WhichOneof("frame") == "chunk"
    assert read(proto.chunk) == chunk
    assert (b"\x25" in message) or chunk.scale == 1.0


@given(chunks)
def test_fast_parser_reads_every_generated_chunk(chunk: Chunk) -> None:
    assert comparable(decode_frame(generated(chunk))) == chunk


@given(chunks)
def test_data_of_a_fast_framed_chunk_is_aligned_and_is_the_payload(chunk: Chunk) -> None:
    message, data = encode_chunk(chunk.index, chunk.applied_through, chunk.data, chunk.scale)
    assert data == chunk.data
    assert (len(message) - data.nbytes) % DATA_ALIGNMENT == 0


@given(frames)
def test_every_frame_survives_the_wire(frame: Frame) -> None:
    assert comparable(decode_frame(encode_frame(frame))) == frame


@given(settles)
def test_every_settle_survives_the_wire(settle: Settle) -> None:
    assert decode_settle(encode_settle(settle)) == settle


@given(settleds)
def test_every_settled_survives_the_wire(settled: Settled) -> None:
    assert decode_settled(encode_settled(settled)) == settled


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x22")
@example(b"\x22\x80")
@example(b"\x22\x00")
@example(b"\x22\x02\x1a\x05")
@example(b"\x22\x0c\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80")
@example(b"\x22\x05\x25\x00\x00\x80\x3e")
@example(b"\x22\x03\x25\x00\x00")
@example(b"\x22\x08\x25\x00\x00\x80\x3e\x1a\x01x")
def test_any_bytes_give_a_frame_or_a_wire_error(message: bytes) -> None:
    agree_with_generated_parser(message)


@given(frames.map(encode_frame), st.data())
def test_any_damage_to_a_frame_gives_a_frame_or_a_wire_error(message: bytes, data: st.DataObject) -> None:
    damaged = bytearray(message)
    for _ in range(data.draw(st.integers(1, 3), "damages")):
        at = data.draw(st.integers(0, len(damaged)), "at")
        damaged[at : at + data.draw(st.integers(0, 2), "removed")] = data.draw(st.binary(max_size=3), "inserted")
    agree_with_generated_parser(bytes(damaged))


@given(st.integers(0, 2**35), st.integers(0, 2**35), st.binary(max_size=9), st.lists(st.integers(1, 11), min_size=4))
def test_varints_of_any_length_are_read_as_the_generated_parser_reads_them(
    index: int, applied_through: int, data: bytes, lengths: list[int]
) -> None:
    fields = b"\x08" + encode_varint(index, lengths[0]) + b"\x10" + encode_varint(applied_through, lengths[1])
    chunk = fields + b"\x1a" + encode_varint(len(data), lengths[2]) + data
    agree_with_generated_parser(b"\x22" + encode_varint(len(chunk), lengths[3]) + chunk)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_settle_or_a_wire_error(message: bytes) -> None:
    for decode in (decode_settle, decode_settled):
        try:
            decode(message)
        except WireError:
            continue


def agree_with_generated_parser(message: bytes) -> None:
    """Decode `message`; whatever is accepted must be what the generated parser reads in it."""
    try:
        frame = decode_frame(message)
    except WireError:
        return
    try:
        proto = pb.ExchangeFrame.FromString(message)
    except DecodeError:
        raise AssertionError(f"the generated parser refuses {message.hex()}, which gave {frame}") from None
    assert type(frame).__name__.lower() == proto.WhichOneof("frame")
    if isinstance(frame, Chunk):
        assert comparable(frame) == read(proto.chunk)

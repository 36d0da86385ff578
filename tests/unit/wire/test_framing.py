from __future__ import annotations

import numpy as np
import pytest

from adpsgd_node.core.exchange.frame import Abort, AbortReason, Chunk, Close, Decline, DeclineReason, Frame, Open
from adpsgd_node.errors import WireError
from adpsgd_node.ids import PROTOCOL_VERSION
from adpsgd_node.wire import framing, limits
from adpsgd_node.wire.framing import decode_frame, decode_settle, decode_settled, encode_chunk, encode_frame
from adpsgd_node.wire.v1 import exchange_pb2 as pb
from adpsgd_node.wire.v1 import membership_pb2


def open_message(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "protocol": PROTOCOL_VERSION,
        "run_id": "run",
        "schema": bytes(limits.SCHEMA_BYTES),
        "initiator": "a",
        "boot": 1,
        "exchange_id": 7,
        "responder": "b",
        "responder_boot": 2,
        "codec": pb.CODEC_FP32,
        "chunk_bytes": 1024,
        "chunk_count": 3,
        "step": 9,
    }
    return pb.ExchangeFrame(open=pb.Open(**(fields | changes))).SerializeToString()  # type: ignore[arg-type]


def read_fast(message: bytes, monkeypatch: pytest.MonkeyPatch) -> Frame:
    """Decode with the generated parser out of reach."""

    def refuse(message: bytes) -> Frame:
        raise AssertionError(f"{message[:20].hex()} was left to the generated parser")

    with monkeypatch.context() as patch:
        patch.setattr(framing, "_parse_frame", refuse)
        return decode_frame(message)


def test_chunk_is_decoded_without_a_copy() -> None:
    message = encode_chunk(5, 4, b"payload").message
    chunk = decode_frame(message)
    assert isinstance(chunk, Chunk)
    assert isinstance(chunk.data, memoryview)
    assert chunk.data.obj is message


def test_encoded_data_is_a_view_into_the_message_and_not_of_the_payload() -> None:
    payload = np.arange(4, dtype=np.float32)
    message, data = encode_chunk(0, 0, payload)
    assert data.obj is message
    payload[:] = -1
    np.testing.assert_array_equal(np.frombuffer(data, np.float32), [0, 1, 2, 3])


@pytest.mark.parametrize("index", [0, 1, 127, 128, 16383, 16384, limits.MAX_CHUNK_COUNT - 1])
@pytest.mark.parametrize("applied_through", [0, 127, 128, limits.MAX_CHUNK_COUNT])
@pytest.mark.parametrize("length", [1, 100, 127, 128, 20_000])
def test_fast_parser_recognises_what_either_side_writes(
    index: int, applied_through: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Chunk(index, applied_through, memoryview(bytes(length)))
    proto = pb.Chunk(index=index, applied_through=applied_through, data=bytes(length))
    assert read_fast(encode_chunk(index, applied_through, bytes(length)).message, monkeypatch) == expected
    assert read_fast(pb.ExchangeFrame(chunk=proto).SerializeToString(), monkeypatch) == expected


@pytest.mark.parametrize("index", [0, 127, 128, limits.MAX_CHUNK_COUNT - 1])
@pytest.mark.parametrize("scale", [0.25, 2.0**-96, 1.0])
def test_fast_parser_recognises_the_scale_that_it_writes(
    index: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Chunk(index, 0, memoryview(bytes(100)), scale)
    assert read_fast(encode_chunk(index, 0, bytes(100), scale).message, monkeypatch) == expected


@pytest.mark.parametrize("scale", [-0.5, 1.0000001, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("fast", [True, False])
def test_scale_that_is_none_is_refused_on_either_path(scale: float, fast: bool) -> None:
    message = encode_chunk(0, 0, b"x", scale).message
    if not fast:
        message = pb.ExchangeFrame(chunk=pb.Chunk(data=b"x", scale=scale)).SerializeToString()
    with pytest.raises(WireError, match="chunk.scale"):
        decode_frame(message)


@pytest.mark.parametrize(
    "fields",
    ["1a01780805", "08051a01782001", "080308051a0178", "1a017908051a0178"],
    ids=["data-first", "unknown-field", "index-twice", "data-twice"],
)
def test_other_valid_encodings_of_a_chunk_are_read_too(fields: str) -> None:
    message = bytes((0x22, len(fields) // 2)) + bytes.fromhex(fields)
    assert decode_frame(message) == Chunk(5, 0, memoryview(b"x"))


def test_unknown_field_beside_the_chunk_is_ignored() -> None:
    message = encode_chunk(5, 4, b"x").message + bytes.fromhex("7801")
    assert decode_frame(message) == Chunk(5, 4, memoryview(b"x"))


@pytest.mark.parametrize(
    ("message", "offender"),
    [
        (b"", "no known kind"),
        (b"\xff\xff", "no valid ExchangeFrame"),
        (open_message(run_id=""), "run_id"),
        (open_message(run_id="a b"), "run_id"),
        (open_message(initiator="x" * 64), "initiator"),
        (open_message(responder="-"), "responder"),
        (open_message(schema=b"short"), "schema: expected 32 bytes, got 5"),
        (open_message(codec=0), "codec: 0 is none of FP32, BF16"),
        (open_message(codec=99), "codec: 99"),
        (open_message(clip=-0.5), "open.clip"),
        (open_message(clip=float("nan")), "open.clip"),
        (open_message(chunk_bytes=limits.MAX_CHUNK_BYTES + 1), "chunk_bytes"),
        (open_message(chunk_count=limits.MAX_CHUNK_COUNT + 1), "chunk_count"),
        (
            open_message(progress=[membership_pb2.ProgressEntry(name="a")] * (limits.MAX_PROGRESS_ENTRIES + 1)),
            "progress entries: 17 exceeds the limit of 16",
        ),
        (open_message(progress=[membership_pb2.ProgressEntry(name="")]), "progress"),
        (pb.ExchangeFrame(decline=pb.Decline()).SerializeToString(), "decline.reason: 0"),
        (pb.ExchangeFrame(abort=pb.Abort()).SerializeToString(), "abort.reason: 0"),
        (pb.ExchangeFrame(chunk=pb.Chunk(index=limits.MAX_CHUNK_COUNT)).SerializeToString(), "chunk index"),
        (pb.ExchangeFrame(close=pb.Close(applied_through=2**32 - 1)).SerializeToString(), "applied_through"),
        (bytes(limits.MAX_MESSAGE_BYTES + 1), "length of an exchange frame"),
        (
            pb.ExchangeFrame(chunk=pb.Chunk(data=bytes(limits.MAX_CHUNK_BYTES + 1))).SerializeToString(),
            "bytes of a chunk",
        ),
    ],
)
def test_refused_message_names_the_offending_field(message: bytes, offender: str) -> None:
    with pytest.raises(WireError, match=offender):
        decode_frame(message)


def test_open_of_another_protocol_version_is_read_so_that_it_can_be_declined_by_name() -> None:
    frame = decode_frame(open_message(protocol=PROTOCOL_VERSION + 1))
    assert isinstance(frame, Open)
    assert frame.protocol == PROTOCOL_VERSION + 1


def test_long_detail_of_a_decline_is_shortened() -> None:
    decline = decode_frame(encode_frame(Decline(DeclineReason.BUSY, "x" * 5000)))
    assert decline == Decline(DeclineReason.BUSY, "x" * limits.MAX_DETAIL_LENGTH)


@pytest.mark.parametrize("frame", [Abort(AbortReason.NON_FINITE_OWN, 0), Close(0)])
def test_frames_whose_numbers_are_zero_keep_their_kind(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


def test_settle_of_no_valid_node_is_refused() -> None:
    message = pb.SettleRequest(run_id="run", initiator="", responder="b").SerializeToString()
    with pytest.raises(WireError, match="initiator"):
        decode_settle(message)


def test_settled_without_an_outcome_is_refused() -> None:
    with pytest.raises(WireError, match="outcome: 0"):
        decode_settled(b"")

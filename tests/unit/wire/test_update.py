"""Frames between workers and parameter servers survive the wire; what is wrong or too long does not pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpsgd_node.core.algorithms.a_psgd import MAX_SERVERS
from adpsgd_node.core.exchange.frame import Chunk, CodecName, Decline, DeclineReason
from adpsgd_node.errors import WireError
from adpsgd_node.ids import NodeId, RunId, SchemaHash
from adpsgd_node.wire.update import (
    Pulled,
    Push,
    UpdateAccept,
    UpdateFrame,
    UpdateOpen,
    decode_update,
    encode_update,
)
from adpsgd_node.wire.v1 import server_pb2 as pb

OPEN = UpdateOpen(
    protocol=1,
    run_id=RunId("r"),
    schema=SchemaHash(b"s" * 32),
    worker=NodeId("w", 3),
    server=NodeId("s", 4),
    codec=CodecName.BF16,
    chunk_bytes=1 << 20,
    chunk_count=7,
    servers=("s", "t"),
)


@pytest.mark.parametrize(
    "frame",
    [
        OPEN,
        UpdateAccept(17),
        Decline(DeclineReason.NOT_READY, "no parameters yet"),
        Chunk(3, 0, b"12345678"),
        Push(number=5, version=9, chunks=2, momentum=0.5, nesterov=True),
        Push(number=1, version=0, chunks=0),
        Pulled(18, 4),
    ],
)
def test_a_frame_survives(frame: UpdateFrame) -> None:
    assert decode_update(encode_update(frame)) == frame


def test_a_chunk_in_the_form_of_another_implementation_is_read() -> None:
    message = pb.UpdateFrame(chunk={"data": b"1234", "index": 2}).SerializeToString()
    assert decode_update(message) == Chunk(2, 0, b"1234")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (pb.UpdateFrame(), "no known kind"),
        (pb.UpdateFrame(push={"number": 0}), "push.number"),
        (pb.UpdateFrame(push={"number": 1 << 63}), "push.number"),
        (pb.UpdateFrame(push={"number": 1, "chunks": 1 << 31}), "push.chunks"),
        (pb.UpdateFrame(push={"number": 1, "momentum": 1.0}), "push.momentum"),
        (pb.UpdateFrame(push={"number": 1, "momentum": -0.1}), "push.momentum"),
        (pb.UpdateFrame(push={"number": 1, "momentum": float("nan")}), "push.momentum"),
        (pb.UpdateFrame(pulled={"version": 1 << 63}), "pulled.version"),
        (pb.UpdateFrame(chunk={"index": 1 << 31}), "chunk index"),
        (pb.UpdateFrame(decline={"reason": 0}), "decline.reason"),
        (pb.UpdateFrame(open={"servers": ["s"] * (MAX_SERVERS + 1)}), "number of servers"),
        (pb.UpdateFrame(open={"run_id": "r", "schema": b"short"}), "schema"),
    ],
)
def test_a_frame_that_cannot_be_is_refused(message: pb.UpdateFrame, text: str) -> None:
    with pytest.raises(WireError, match=text):
        decode_update(message.SerializeToString())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    try:
        frame = decode_update(data)
    except WireError:
        return
    if not isinstance(frame, Chunk):
        assert decode_update(encode_update(frame)) == frame

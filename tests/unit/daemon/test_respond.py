"""What comes after an exchange has been settled changes nothing, whatever the timing."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from adpsgd_node.codecs import codec_named
from adpsgd_node.core.exchange.frame import Chunk, CodecName, Open
from adpsgd_node.core.exchange.journal import ExchangeKey, Journal
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.merge import Merge
from adpsgd_node.daemon.pace import Pace
from adpsgd_node.daemon.respond import Response, Undo
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId
from adpsgd_node.net.transport import Stream
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.wire.framing import encode_frame
from support.scripted_stream import ScriptedStream

ADA = NodeId("ada", 1)
BOB = NodeId("bob", 1)
CHUNK_BYTES = 4096


@pytest.fixture
def plane() -> Plane:
    plane = Plane.create(Layout.build([TensorSpec("w", (2048,), "float32", Segment.PARAMETERS)], CHUNK_BYTES))
    plane.live[:] = 1.0
    return plane


def _chunk(index: int, value: float) -> bytes:
    return encode_frame(Chunk(index, 0, np.full(1024, value, np.float32).tobytes()))


def _response(plane: Plane, stream: Stream, journal: Journal[Undo]) -> Response:
    layout = plane.layout
    open_ = Open(
        protocol=PROTOCOL_VERSION,
        run_id=RunId("run"),
        schema=layout.schema,
        initiator=ADA,
        responder=BOB,
        exchange_id=5,
        codec=CodecName.FP32,
        chunk_bytes=layout.chunk_bytes,
        chunk_count=len(layout.chunks),
        step=0,
    )
    journal.open(ExchangeKey(ADA, 5))
    return Response(stream, open_, Merge(plane), codec_named(CodecName.FP32), journal, pace=Pace(4 * layout.elements))


async def test_chunk_that_comes_after_its_settle_is_not_applied(plane: Plane) -> None:
    stream, journal = ScriptedStream(), Journal[Undo]()
    response = _response(plane, stream, journal)
    running = asyncio.create_task(response.run(b"accept"))
    stream.inbox.put_nowait(_chunk(0, 3.0))
    while response.machine.merged < 1:
        await asyncio.sleep(0)
    _, undo = journal.settle(response.key, 0)
    response.revert(undo)
    assert not plane.inbox.any()
    stream.inbox.put_nowait(_chunk(1, 3.0))
    ended = await running
    assert ended.outcome is Outcome.BROKEN
    assert not plane.inbox.any()


async def test_chunk_that_is_not_finite_is_refused_and_nothing_of_it_is_applied(plane: Plane) -> None:
    stream, journal = ScriptedStream(), Journal[Undo]()
    values = np.full(1024, 3.0, np.float32)
    values[1000] = np.nan
    stream.inbox.put_nowait(encode_frame(Chunk(0, 0, values.tobytes())))
    stream.inbox.put_nowait(None)
    response = _response(plane, stream, journal)
    await response.run(b"accept")
    assert not plane.inbox.any()
    assert response.refused_side is not None
    assert response.refused_side.value == "theirs"
    assert len(journal) == 0, "nothing was applied, so nothing waits to be settled"


async def test_chunk_of_the_wrong_length_breaks_the_exchange_and_changes_nothing(plane: Plane) -> None:
    stream, journal = ScriptedStream(), Journal[Undo]()
    stream.inbox.put_nowait(encode_frame(Chunk(0, 0, b"\0" * 8)))
    ended = await _response(plane, stream, journal).run(b"accept")
    assert ended.outcome is Outcome.BROKEN
    assert not plane.inbox.any()


async def test_broken_stream_leaves_its_chunks_to_be_settled(plane: Plane) -> None:
    stream, journal = ScriptedStream(), Journal[Undo]()
    response = _response(plane, stream, journal)
    stream.inbox.put_nowait(_chunk(0, 3.0))
    stream.inbox.put_nowait(None)
    ended = await response.run(b"accept")
    assert ended.outcome is Outcome.BROKEN
    assert journal.is_open(response.key)
    assert plane.inbox[:1024].tolist() == [1.0] * 1024
    _, undo = journal.settle(response.key, 0)
    response.revert(undo)
    assert not plane.inbox.any()

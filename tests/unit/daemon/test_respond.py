"""What comes after an exchange has been settled changes nothing, whatever the timing."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from adpsgd_node.codecs import codec_named
from adpsgd_node.core.exchange.frame import Abort, AbortReason, Chunk, Close, CodecName, Open
from adpsgd_node.core.exchange.guard import STEADY_LOOKS, ChunkShape, Guard, Norms
from adpsgd_node.core.exchange.journal import ExchangeKey
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.exchange.quarantine import OffenceKind
from adpsgd_node.core.exchange.rate import PeerRate
from adpsgd_node.core.exchange.referee import Referee
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.merge import Merge
from adpsgd_node.daemon.pace import Pace
from adpsgd_node.daemon.respond import Response
from adpsgd_node.daemon.undo import UndoLog
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId
from adpsgd_node.net.transport import Stream
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.wire.framing import decode_frame, encode_frame
from support.scripted_stream import ScriptedStream

ADA = NodeId("ada", 1)
BOB = NodeId("bob", 1)
CHUNK_BYTES = 4096
SHAPES = [ChunkShape(1024, Segment.PARAMETERS)] * 2


@pytest.fixture
def plane() -> Plane:
    plane = Plane.create(Layout.build([TensorSpec("w", (2048,), "float32", Segment.PARAMETERS)], CHUNK_BYTES))
    plane.live[:] = 1.0
    return plane


def _chunk(index: int, value: float) -> bytes:
    return encode_frame(Chunk(index, 0, np.full(1024, value, np.float32).tobytes()))


def _log(plane: Plane) -> UndoLog:
    log = UndoLog(lambda key, chunks: None)
    log.use(Merge(plane))
    return log


def _response(
    plane: Plane,
    stream: Stream,
    log: UndoLog,
    *,
    guard: Guard | None = None,
    clip: float = 0.0,
    rate: PeerRate | None = None,
) -> Response:
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
    log.journal.open(ExchangeKey(ADA, 5))
    pace = Pace(rate or PeerRate(), 4 * layout.elements, layout.chunk_bytes)
    referee = Referee(guard or Guard(SHAPES), ADA, clip)
    assert log.merge is not None
    return Response(stream, open_, 100, log.merge, codec_named(CodecName.FP32), referee, log, pace=pace)


async def test_chunk_that_comes_after_its_settle_is_not_applied(plane: Plane) -> None:
    stream, log = ScriptedStream(), _log(plane)
    response = _response(plane, stream, log)
    running = asyncio.create_task(response.run(b"accept"))
    stream.inbox.put_nowait(_chunk(0, 3.0))
    while response.machine.merged < 1:
        await asyncio.sleep(0)
    log.settle(response.key, 0)
    assert not plane.inbox.any()
    stream.inbox.put_nowait(_chunk(1, 3.0))
    ended = await running
    assert ended.outcome is Outcome.BROKEN
    assert not plane.inbox.any()


async def test_chunk_that_is_not_finite_is_refused_and_nothing_of_it_is_applied(plane: Plane) -> None:
    stream, log = ScriptedStream(), _log(plane)
    values = np.full(1024, 3.0, np.float32)
    values[1000] = np.nan
    stream.inbox.put_nowait(encode_frame(Chunk(0, 0, values.tobytes())))
    stream.inbox.put_nowait(None)
    response = _response(plane, stream, log)
    await response.run(b"accept")
    assert not plane.inbox.any()
    assert response.refused_side is not None
    assert response.refused_side.value == "theirs"
    assert len(log.journal) == 0, "nothing was applied, so nothing waits to be settled"


async def test_chunk_of_the_wrong_length_breaks_the_exchange_and_changes_nothing(plane: Plane) -> None:
    stream, log = ScriptedStream(), _log(plane)
    stream.inbox.put_nowait(encode_frame(Chunk(0, 0, b"\0" * 8)))
    ended = await _response(plane, stream, log).run(b"accept")
    assert ended.outcome is Outcome.BROKEN
    assert not plane.inbox.any()


async def test_broken_stream_leaves_its_chunks_to_be_settled(plane: Plane) -> None:
    stream, log = ScriptedStream(), _log(plane)
    response = _response(plane, stream, log)
    stream.inbox.put_nowait(_chunk(0, 3.0))
    stream.inbox.put_nowait(None)
    ended = await response.run(b"accept")
    assert ended.outcome is Outcome.BROKEN
    assert log.journal.is_open(response.key)
    assert plane.inbox[:1024].tolist() == [1.0] * 1024
    log.settle(response.key, 0)
    assert not plane.inbox.any()


async def test_chunk_that_is_far_too_large_is_refused_with_its_reason_and_is_an_offence(plane: Plane) -> None:
    guard = Guard(SHAPES)
    for _ in range(STEADY_LOOKS):
        guard.judge(ADA, 0, Norms(32.0, 32.0, 0.0))
    stream, log = ScriptedStream(), _log(plane)
    stream.inbox.put_nowait(_chunk(0, 100.0))
    response = _response(plane, stream, log, guard=guard)
    running = asyncio.create_task(response.run(b"accept"))
    while len(stream.sent) < 2:
        await asyncio.sleep(0)
    stream.inbox.put_nowait(encode_frame(Close(0)))
    await running
    assert not plane.inbox.any()
    assert decode_frame(stream.sent[-1]) == Abort(AbortReason.NORM_JUMP, 0)
    report = response.report(seconds=1.0, steps_during=0)
    assert report.offence is not None
    assert (report.offence.kind, report.offence.ratio) == (OffenceKind.NORM_JUMP, pytest.approx(100.0))
    assert not report.non_finite


async def test_clipped_chunk_moves_by_what_the_answer_says_and_is_reverted_to_the_bit(plane: Plane) -> None:
    stream, log = ScriptedStream(), _log(plane)
    stream.inbox.put_nowait(_chunk(0, 3.0))
    response = _response(plane, stream, log, clip=0.5)
    running = asyncio.create_task(response.run(b"accept"))
    while len(stream.sent) < 2:
        await asyncio.sleep(0)
    stream.inbox.put_nowait(None)
    await running
    answer = decode_frame(stream.sent[-1])
    assert isinstance(answer, Chunk)
    assert answer.scale == 0.25
    assert np.all(plane.inbox[:1024] == 0.25)
    log.settle(response.key, 0)
    assert not plane.inbox.any()


async def test_pace_of_a_complete_exchange_is_remembered(plane: Plane) -> None:
    rate = PeerRate()
    unknown = rate.deadlines(8192, 4096)
    stream, log = ScriptedStream(), _log(plane)
    for message in (_chunk(0, 3.0), _chunk(1, 3.0), encode_frame(Close(2))):
        stream.inbox.put_nowait(message)
    ended = await _response(plane, stream, log, rate=rate).run(b"accept")
    assert ended.outcome is Outcome.COMPLETE
    known = rate.deadlines(8192, 4096)
    assert known.idle_s < unknown.idle_s
    assert known.whole_s < unknown.whole_s

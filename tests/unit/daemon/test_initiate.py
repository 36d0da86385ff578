"""A responder may answer with anything; the initiator breaks the exchange, and never itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from adpsgd_node.codecs import codec_named
from adpsgd_node.core.exchange.frame import Abort, AbortReason, Accept, Chunk, Close, CodecName, Open
from adpsgd_node.core.exchange.initiator import InitiatorState
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.initiate import Initiation
from adpsgd_node.daemon.merge import Merge, Side
from adpsgd_node.daemon.pace import Pace
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.wire.framing import decode_frame, encode_frame
from support.scripted_stream import ScriptedStream

CHUNK_BYTES = 4096
CHUNKS = 3


@pytest.fixture
def plane() -> Plane:
    spec = TensorSpec("w", (CHUNKS * CHUNK_BYTES // 4,), "float32", Segment.PARAMETERS)
    plane = Plane.create(Layout.build([spec], CHUNK_BYTES))
    plane.live[:] = 1.0
    return plane


def _initiation(plane: Plane, stream: ScriptedStream, *, idle_s: float = 5.0) -> Initiation:
    layout = plane.layout
    open_ = Open(
        protocol=PROTOCOL_VERSION,
        run_id=RunId("run"),
        schema=layout.schema,
        initiator=NodeId("ada", 1),
        responder=NodeId("bob", 1),
        exchange_id=1,
        codec=CodecName.FP32,
        chunk_bytes=layout.chunk_bytes,
        chunk_count=len(layout.chunks),
        step=0,
    )
    pace = Pace(4 * layout.elements, idle_s=idle_s)
    return Initiation(stream, open_, Merge(plane), codec_named(CodecName.FP32), window=2, pace=pace)


def _answer(index: int, value: float) -> bytes:
    return encode_frame(Chunk(index, 0, np.full(CHUNK_BYTES // 4, value, np.float32).tobytes()))


async def test_answer_to_a_chunk_that_was_not_sent_yet_breaks_the_exchange(plane: Plane) -> None:
    stream = ScriptedStream(sendable=2)  # Open and chunk 0; chunk 1 waits for the peer's window
    for message in (encode_frame(Accept(0)), _answer(0, 3.0), _answer(1, 3.0)):
        stream.inbox.put_nowait(message)
    ended = await _initiation(plane, stream).run()
    assert ended.outcome is Outcome.BROKEN
    assert ended.applied <= 1


def _responder(values: dict[int, float]) -> Callable[[bytes], list[bytes | None]]:
    """Answer as a responder whose chunks hold `values` (3.0 where not named)."""

    def answer(message: bytes) -> list[bytes | None]:
        match decode_frame(message):
            case Open():
                return [encode_frame(Accept(0))]
            case Chunk(index=index):
                return [_answer(index, values.get(index, 3.0))]
            case _:
                return [None]

    return answer


async def test_exchange_averages_every_chunk_and_closes(plane: Plane) -> None:
    initiation = _initiation(plane, ScriptedStream(answer=_responder({})))
    ended = await initiation.run()
    assert ended.outcome is Outcome.COMPLETE
    assert np.all(plane.inbox == 1.0)
    assert initiation.distance.relative == pytest.approx(2.0)


async def test_answer_that_is_not_finite_is_not_applied_and_closes_what_was(plane: Plane) -> None:
    stream = ScriptedStream(answer=_responder({1: float("nan")}))
    initiation = _initiation(plane, stream)
    ended = await initiation.run()
    assert (ended.outcome, ended.applied) == (Outcome.PARTIAL, 1)
    assert initiation.refused_side is Side.THEIRS
    assert decode_frame(stream.sent[-1]) == Close(1)
    assert plane.inbox[: CHUNK_BYTES // 4].tolist() == [1.0] * (CHUNK_BYTES // 4)
    assert not plane.inbox[CHUNK_BYTES // 4 :].any()


@pytest.mark.parametrize("index", [0, CHUNKS, 2**31])
async def test_abort_with_any_index_ends_in_good_order(plane: Plane, index: int) -> None:
    stream = ScriptedStream()
    stream.inbox.put_nowait(encode_frame(Accept(0)))
    stream.inbox.put_nowait(encode_frame(Abort(AbortReason.NON_FINITE_THEIRS, index)))
    initiation = _initiation(plane, stream)
    running = asyncio.create_task(initiation.run())
    while initiation.machine.state in (InitiatorState.OPENING, InitiatorState.STREAMING):
        await asyncio.sleep(0)
    stream.inbox.put_nowait(None)
    ended = await running
    assert ended.outcome in (Outcome.PARTIAL, Outcome.BROKEN)
    assert not plane.inbox.any()


async def test_responder_that_says_nothing_is_given_up(plane: Plane) -> None:
    stream = ScriptedStream()
    ended = await _initiation(plane, stream, idle_s=0.01).run()
    assert ended.outcome is Outcome.UNREACHABLE
    assert "no message for" in ended.cause
    assert stream.cancelled

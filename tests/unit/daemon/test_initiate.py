"""A responder may answer with anything; the initiator breaks the exchange, and never itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from adpsgd_node.codecs import codec_named
from adpsgd_node.core.exchange.frame import Abort, AbortReason, Accept, Chunk, Close, CodecName, Open
from adpsgd_node.core.exchange.guard import STEADY_LOOKS, ChunkShape, Guard, Norms
from adpsgd_node.core.exchange.initiator import InitiatorEnded, InitiatorState
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.exchange.quarantine import OffenceKind
from adpsgd_node.core.exchange.rate import UNKNOWN_IDLE_S, PeerRate
from adpsgd_node.core.exchange.referee import Referee
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.initiate import Initiation
from adpsgd_node.daemon.merge import Merge, Side
from adpsgd_node.daemon.pace import Pace
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.wire.framing import decode_frame, encode_frame
from support.scripted_stream import ScriptedStream
from support.virtual_clock import run_virtual

CHUNK_BYTES = 4096
CHUNKS = 3
SHAPES = [ChunkShape(CHUNK_BYTES // 4, Segment.PARAMETERS)] * CHUNKS


@pytest.fixture
def plane() -> Plane:
    spec = TensorSpec("w", (CHUNKS * CHUNK_BYTES // 4,), "float32", Segment.PARAMETERS)
    plane = Plane.create(Layout.build([spec], CHUNK_BYTES))
    plane.live[:] = 1.0
    return plane


def _initiation(
    plane: Plane,
    stream: ScriptedStream,
    *,
    rate: PeerRate | None = None,
    guard: Guard | None = None,
    clip: float = 0.0,
) -> Initiation:
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
    pace = Pace(rate or PeerRate(), 4 * layout.elements, layout.chunk_bytes)
    referee = Referee(guard or Guard(SHAPES), open_.responder, clip)
    return Initiation(stream, open_, Merge(plane), codec_named(CodecName.FP32), referee, window=2, pace=pace)


def _answer(index: int, value: float, scale: float = 1.0) -> bytes:
    return encode_frame(Chunk(index, 0, np.full(CHUNK_BYTES // 4, value, np.float32).tobytes(), scale))


async def test_answer_to_a_chunk_that_was_not_sent_yet_breaks_the_exchange(plane: Plane) -> None:
    stream = ScriptedStream(sendable=2)  # Open and chunk 0; chunk 1 waits for the peer's window
    for message in (encode_frame(Accept(0)), _answer(0, 3.0), _answer(1, 3.0)):
        stream.inbox.put_nowait(message)
    ended = await _initiation(plane, stream).run()
    assert ended.outcome is Outcome.BROKEN
    assert ended.applied <= 1


def _responder(values: dict[int, float], scale: float = 1.0) -> Callable[[bytes], list[bytes | None]]:
    """Answer as a responder whose chunks hold `values` (3.0 where not named)."""

    def answer(message: bytes) -> list[bytes | None]:
        match decode_frame(message):
            case Open():
                return [encode_frame(Accept(0))]
            case Chunk(index=index):
                return [_answer(index, values.get(index, 3.0), scale)]
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


def test_responder_that_says_nothing_is_given_up_and_given_twice_the_time_then(plane: Plane) -> None:
    async def silence(rate: PeerRate) -> tuple[float, ScriptedStream, InitiatorEnded]:
        started, stream = asyncio.get_running_loop().time(), ScriptedStream()
        ended = await _initiation(plane, stream, rate=rate).run()
        return asyncio.get_running_loop().time() - started, stream, ended

    async def twice() -> tuple[float, float]:
        rate = PeerRate()
        first, stream, ended = await silence(rate)
        assert ended.outcome is Outcome.UNREACHABLE
        assert "no message for" in ended.cause
        assert stream.cancelled
        second, _, _ = await silence(rate)
        return first, second

    first, second = run_virtual(twice())
    assert first >= UNKNOWN_IDLE_S
    assert second == pytest.approx(2 * first)


def _watchful(norm: float) -> Guard:
    """Return a guard that has seen our own chunks at `norm` for long enough."""
    guard = Guard(SHAPES)
    for _ in range(STEADY_LOOKS):
        for index in range(CHUNKS):
            assert guard.judge(NodeId("bob", 1), index, Norms(norm, norm, 0.0)) is None
    return guard


async def test_answer_that_is_far_too_large_is_not_applied_and_is_an_offence(plane: Plane) -> None:
    stream = ScriptedStream(answer=_responder({2: 300.0}))
    initiation = _initiation(plane, stream, guard=_watchful(32.0))
    ended = await initiation.run()
    assert (ended.outcome, ended.applied) == (Outcome.PARTIAL, 2)
    report = initiation.report(ended, seconds=1.0, steps_during=0)
    assert report.offence is not None
    assert (report.offence.kind, report.offence.index) == (OffenceKind.NORM_JUMP, 2)
    assert report.offence.ratio == pytest.approx(300.0)
    assert not report.non_finite
    assert decode_frame(stream.sent[-1]) == Close(2)
    assert not plane.inbox[2 * CHUNK_BYTES // 4 :].any()


@pytest.mark.parametrize(("scale", "outcome"), [(0.25, Outcome.COMPLETE), (0.3, Outcome.BROKEN)])
async def test_scale_that_breaks_the_bound_of_the_initiator_breaks_the_exchange(
    plane: Plane, scale: float, outcome: Outcome
) -> None:
    """All chunks are 1 here and 3 there: with a bound of one half, a quarter of the difference may move."""
    initiation = _initiation(plane, ScriptedStream(answer=_responder({}, scale)), clip=0.5)
    ended = await initiation.run()
    assert ended.outcome is outcome
    if outcome is Outcome.COMPLETE:
        assert np.all(plane.inbox == 0.25)
    else:
        assert "--clip-exchange" in ended.cause
        assert not plane.inbox.any()


async def test_abort_for_a_norm_jump_is_reported_and_poisons_nobody(plane: Plane) -> None:
    abort = Abort(AbortReason.NORM_JUMP, 0)

    def answer(message: bytes) -> list[bytes | None]:
        match decode_frame(message):
            case Open():
                return [encode_frame(Accept(0)), encode_frame(abort)]
            case Close():
                return [None]
            case _:
                return []

    initiation = _initiation(plane, ScriptedStream(answer=answer))
    ended = await initiation.run()
    report = initiation.report(ended, seconds=1.0, steps_during=0)
    assert report.abort == abort
    assert not report.non_finite
    assert initiation.own_fault() is None


async def test_pace_of_a_complete_exchange_is_remembered(plane: Plane) -> None:
    rate = PeerRate()
    unknown = rate.deadlines(8192, 4096)
    await _initiation(plane, ScriptedStream(answer=_responder({})), rate=rate).run()
    known = rate.deadlines(8192, 4096)
    assert known.idle_s < unknown.idle_s
    assert known.whole_s < unknown.whole_s

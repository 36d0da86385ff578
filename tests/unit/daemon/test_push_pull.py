"""Workers push to parameter servers and pull from them: each step counts once, whatever breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from adpsgd_node.core.exchange.frame import CodecName, Decline, DeclineReason
from adpsgd_node.daemon.server import NotFiniteError
from adpsgd_node.errors import ConfigError, PeerLostError, StreamBrokenError
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId
from adpsgd_node.net.transport import StreamMethod
from adpsgd_node.plane import Command
from adpsgd_node.wire.framing import encode_chunk
from adpsgd_node.wire.update import Push, UpdateOpen, decode_update, encode_update
from support.donor_group import counted
from support.parameter_servers import ELEMENTS, Shop

Opening = Callable[..., Shop]


@pytest.fixture
async def opening() -> AsyncIterator[Opening]:
    shops: list[Shop] = []

    def make(*servers: str, **settings: object) -> Shop:
        shops.append(Shop(*servers, **settings))  # type: ignore[arg-type]
        return shops[-1]

    yield make
    for shop in shops:
        await shop.close()


def moves(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, ELEMENTS)).astype(np.float32)


@pytest.mark.parametrize("servers", [("s",), ("s", "a"), ("a", "b", "s"), ("s", "a", "b", "x", "y")])
async def test_servers_apply_every_move_once_divided_by_the_number_of_workers(
    opening: Opening, servers: tuple[str, ...]
) -> None:
    shop = opening(*servers, workers=3)
    workers = [await shop.add(name) for name in sorted({"s", "a", "b", *servers})]
    expected = np.ones(ELEMENTS, np.float64)
    for turn in range(10):
        for place, worker in enumerate(workers):
            move = moves(1, 100 * turn + place)[0]
            await worker.train(move)
            expected += move.astype(np.float64) / 3
            np.testing.assert_allclose(worker.plane.live, shop.parameters, atol=1e-6)
    np.testing.assert_allclose(shop.parameters, expected, atol=1e-5)


async def test_workers_that_push_at_the_same_time_lose_nothing(opening: Opening) -> None:
    shop = opening("s", workers=4)
    workers = [await shop.add(name) for name in ("s", "a", "b", "c")]
    given = [moves(25, place) for place in range(4)]

    async def train(place: int) -> None:
        for move in given[place]:
            await workers[place].train(move)

    await asyncio.gather(*(train(place) for place in range(4)))
    expected = 1.0 + sum(each.astype(np.float64).sum(axis=0) for each in given) / 4
    np.testing.assert_allclose(shop.parameters, expected, atol=2e-5)
    assert counted(shop.nodes["s"].metrics, "adpsgd_server_pushes_total") == 100
    assert counted(shop.nodes["s"].metrics, "adpsgd_server_staleness_pushes_sum") > 0


async def test_momentum_is_applied_by_the_server_as_torch_does(opening: Opening) -> None:
    shop = opening("s", buffers=32)
    for name in ("s", "a"):
        await shop.add(name)
    given = moves(6)
    parameters, velocity, mean = np.ones(ELEMENTS), np.zeros(ELEMENTS), np.ones(32)
    for turn, move in enumerate(given):
        worker = shop.nodes["sa"[turn % 2]]
        worker.plane.header.momentum = 0.9
        worker.plane.live[ELEMENTS:] += np.float32(0.25)
        await worker.train(move)
        velocity = 0.9 * velocity - move
        parameters, mean = parameters - velocity, mean + 0.25
    np.testing.assert_allclose(shop.parameters[:ELEMENTS], parameters, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(shop.parameters[ELEMENTS:], mean, rtol=1e-6)


async def test_momentum_may_be_nesterovs(opening: Opening) -> None:
    shop = opening("s")
    worker = await shop.add("s")
    worker.plane.header.momentum, worker.plane.header.nesterov = 0.5, 1
    parameters, velocity = np.ones(ELEMENTS), np.zeros(ELEMENTS)
    for move in moves(4):
        await worker.train(move)
        velocity = 0.5 * velocity - move
        parameters -= -move + 0.5 * velocity
    np.testing.assert_allclose(shop.parameters, parameters, rtol=1e-5, atol=1e-5)


async def test_a_push_whose_stream_breaks_is_made_again_and_counts_once(opening: Opening) -> None:
    shop = opening("s", "t", workers=2, cuts=0.7)
    workers = [await shop.add(name) for name in ("s", "t", "a", "b")]
    given = [moves(20, place) for place in range(4)]
    for turn in range(20):
        await asyncio.gather(*(worker.train(given[place][turn]) for place, worker in enumerate(workers)))
    assert sum(transport.cuts for transport in shop.transports) > 20
    expected = 1.0 + sum(each.astype(np.float64).sum(axis=0) for each in given) / 2
    np.testing.assert_allclose(shop.parameters, expected, atol=2e-5)


async def test_a_push_that_is_broken_off_and_made_again_counts_once(opening: Opening) -> None:
    shop = opening("s")
    await shop.add("s")
    worker = await shop.add("a")
    move = moves(1)[0]
    worker.plane.live[:ELEMENTS] += move
    for turns in range(30):  # the trainer dies, and the push with it, at every point of it
        worker.push_pull.stepped(1)
        for _ in range(turns):
            await asyncio.sleep(0)  # let it come so far
        worker.push_pull.stop()
        worker.fold.fold(force=True)
    worker.step = 0
    await worker.pushed()
    np.testing.assert_allclose(shop.parameters, 1.0 + move, atol=1e-6)
    np.testing.assert_allclose(worker.plane.live, shop.parameters, atol=1e-6)


async def test_a_worker_that_comes_late_pulls_what_the_servers_have(opening: Opening) -> None:
    shop = opening("s", workers=1)
    first = await shop.add("s")
    await first.train(moves(1)[0])
    late = await shop.add("late", start=5.0)
    await late.train(np.zeros(ELEMENTS, np.float32))
    np.testing.assert_allclose(late.plane.live, shop.parameters, atol=1e-6)
    np.testing.assert_allclose(shop.parameters, 1.0 + moves(1)[0], atol=1e-6)


async def test_half_precision_on_the_wire_is_no_worse_than_its_rounding(opening: Opening) -> None:
    shop = opening("s", workers=1, codec=CodecName.BF16)
    await shop.add("s")
    worker = await shop.add("a")
    expected = np.ones(ELEMENTS)
    for move in moves(10):
        await worker.train(np.float32(0.01) * move)
        expected += 0.01 * move
    np.testing.assert_allclose(shop.parameters, expected, atol=0.03)
    np.testing.assert_allclose(worker.plane.live, shop.parameters, rtol=2**-8)


async def test_a_lost_server_is_named_once_a_step_waits_for_it(opening: Opening) -> None:
    shop = opening("s", "t")
    for name in ("s", "t"):
        await shop.add(name)
    worker = await shop.add("a")
    await worker.train(moves(1)[0])
    vain = asyncio.ensure_future(worker.push_pull.vain(worker.plane))
    shop.lose("t")
    await asyncio.sleep(0)
    assert not vain.done(), "it may have done its last step"
    worker.plane.header.step += 1
    shop.watch.notify()
    error = await asyncio.wait_for(vain, 5.0)
    assert isinstance(error, PeerLostError)
    assert str(error).startswith("t served")


async def test_a_server_that_goes_at_the_end_of_the_run_is_not_missed(opening: Opening) -> None:
    shop = opening("s")
    await shop.add("s")
    worker = await shop.add("a")
    await worker.train(moves(1)[0])
    vain = asyncio.ensure_future(worker.push_pull.vain(worker.plane))
    worker.plane.header.command = Command.STOP
    shop.lose("s")
    await worker.pushed()
    assert not vain.done()
    vain.cancel()


async def test_a_server_in_a_new_life_gets_no_push_meant_for_the_old_one(opening: Opening) -> None:
    shop = opening("s")
    await shop.add("s")
    worker = await shop.add("a")
    await worker.train(moves(1)[0])
    shop.lose("s")
    again = await shop.add("s", start=7.0, boot=2)
    worker.plane.live += 1
    worker.plane.header.step = 2
    worker.push_pull.stepped(2)
    error = await asyncio.wait_for(worker.push_pull.vain(worker.plane), 5.0)
    assert "s served" in str(error)
    assert counted(again.metrics, "adpsgd_server_pushes_total") == 0
    assert (worker.plane.live < 5).all()


async def test_a_push_that_would_overflow_is_refused_and_changes_nothing(opening: Opening) -> None:
    shop = opening("s")
    await shop.add("s")
    worker = await shop.add("a")
    move = moves(1)[0]
    move[40] = 3e38
    worker.plane.header.momentum = 0.9
    await worker.train(move)
    await worker.train(np.zeros(ELEMENTS, np.float32))
    assert [type(error) for error in worker.refusals] == [NotFiniteError]
    assert np.isfinite(shop.parameters).all()


async def test_a_server_that_comes_later_is_waited_for(opening: Opening) -> None:
    shop = opening("s")
    worker = await shop.add("a")
    push = asyncio.ensure_future(worker.train(moves(1)[0]))
    await asyncio.sleep(0)
    await shop.add("s")
    await asyncio.wait_for(push, 10.0)
    np.testing.assert_allclose(worker.plane.live, shop.parameters, atol=1e-6)


async def test_a_push_that_is_not_finite_changes_no_parameters_and_its_worker_is_told(opening: Opening) -> None:
    shop = opening("s")
    await shop.add("s")
    worker = await shop.add("a")
    move = moves(1)[0]
    move[40] = np.nan
    await worker.train(move)
    assert [type(error) for error in worker.refusals] == [NotFiniteError]
    assert np.isfinite(shop.parameters).all()


async def test_servers_named_otherwise_are_refused_for_good(opening: Opening) -> None:
    shop = opening("s")
    await shop.add("s")
    worker = await shop.add("a", servers=("s", "b"))
    worker.push_pull.stepped(1)
    async with asyncio.timeout(5.0):
        await worker.done.wait()
    assert [type(error) for error in worker.refusals] == [ConfigError]
    assert "--servers s here, s,b there" in str(worker.refusals[0])


def opened(**changes: object) -> UpdateOpen:
    shop = Shop("s")
    fields: dict[str, object] = {
        "protocol": PROTOCOL_VERSION,
        "run_id": RunId("test"),
        "schema": shop.layout.schema,
        "worker": NodeId("s", 1),
        "server": NodeId("s", 1),
        "codec": CodecName.FP32,
        "chunk_bytes": shop.layout.chunk_bytes,
        "chunk_count": len(shop.layout.chunks),
        "servers": ("s",),
    }
    return UpdateOpen(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": 99}, DeclineReason.PROTOCOL),
        ({"run_id": RunId("other")}, DeclineReason.RUN),
        ({"schema": b"x" * 32}, DeclineReason.SCHEMA),
        ({"chunk_count": 7}, DeclineReason.SCHEMA),
        ({"chunk_bytes": 64}, DeclineReason.SCHEMA),
        ({"server": NodeId("s", 2)}, DeclineReason.IDENTITY),
        ({"servers": ()}, DeclineReason.RUN),
        ({"worker": NodeId("nobody", 1)}, DeclineReason.IDENTITY),
    ],
)
async def test_a_stranger_is_declined_with_the_reason(
    opening: Opening, changes: dict[str, object], reason: DeclineReason
) -> None:
    shop = opening("s")
    await shop.add("s")
    stream = await shop.network.transport("x:1").open(shop.members["s"].address, StreamMethod.UPDATE)
    await stream.send(encode_update(opened(**changes)))
    answer = decode_update(await stream.receive() or b"")
    assert isinstance(answer, Decline)
    assert answer.reason is reason


@pytest.mark.parametrize(
    "messages",
    [
        [encode_update(Push(number=1, version=0, chunks=9))],
        [encode_update(Push(number=1, version=0, chunks=1)), encode_chunk(77, 0, bytes(128)).message],
        [encode_update(Push(number=1, version=0, chunks=1)), encode_chunk(0, 0, bytes(12)).message],
        [encode_update(Push(number=1, version=0, chunks=1)), encode_update(Push(number=2, version=0, chunks=1))],
        [encode_chunk(0, 0, bytes(128)).message],
        [b"\xff\xff"],
    ],
)
async def test_garbage_breaks_the_stream_and_changes_nothing(opening: Opening, messages: list[bytes]) -> None:
    shop = opening("s")
    server = await shop.add("s")
    stream = await shop.network.transport("x:1").open(shop.members["s"].address, StreamMethod.UPDATE)
    await stream.send(encode_update(opened()))
    await stream.receive()
    for message in messages:
        await stream.send(message)
    with contextlib.suppress(StreamBrokenError):
        while await stream.receive() is not None:
            pass
    np.testing.assert_array_equal(shop.parameters, np.ones(ELEMENTS))
    await server.train(moves(1)[0])

"""What the streams of every transport do, whichever it is."""

from __future__ import annotations

import asyncio

import pytest

from adpsgd_node.errors import (
    StreamBrokenError,
    UnreachableError,
    WireError,
)
from adpsgd_node.net.transport import Method, Stream, StreamMethod
from support.transport_cluster import PATIENCE_S, Cluster, echo, serve_stream, within


async def test_stream_carries_messages_both_ways_in_order(cluster: Cluster) -> None:
    peer = await serve_stream(cluster, echo)
    stream = await cluster.node().open(peer, StreamMethod.CONVERSE)
    messages = [bytes([number]) * (1 + 4096 * number) for number in range(40)]

    async def send() -> None:
        for message in messages:
            await stream.send(message)
        await stream.end()

    sending = asyncio.create_task(send())
    received = [await stream.receive() for _ in messages]
    assert received == messages
    assert await within(stream.receive()) is None
    await sending


async def test_empty_message_is_a_message_and_no_end(cluster: Cluster) -> None:
    peer = await serve_stream(cluster, echo)
    stream = await cluster.node().open(peer, StreamMethod.CONVERSE)
    await stream.send(b"")
    assert await within(stream.receive()) == b""
    await stream.end()
    assert await within(stream.receive()) is None


async def test_messages_sent_before_the_handler_returns_all_arrive(cluster: Cluster) -> None:
    async def handler(stream: Stream) -> None:
        for number in range(5):
            await stream.send(bytes([number]))

    peer = await serve_stream(cluster, handler)
    caller = cluster.node()
    for _ in range(20):
        stream = await caller.open(peer, StreamMethod.CONVERSE)
        received = [await within(stream.receive()) for _ in range(6)]
        assert received == [b"\x00", b"\x01", b"\x02", b"\x03", b"\x04", None]


async def test_caller_that_ends_its_side_is_seen_as_a_clean_end(cluster: Cluster) -> None:
    seen: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def handler(stream: Stream) -> None:
        seen.put_nowait(await stream.receive())
        seen.put_nowait(await stream.receive())
        await stream.send(b"done")

    peer = await serve_stream(cluster, handler)
    stream = await cluster.node().open(peer, StreamMethod.CONVERSE)
    await stream.send(b"only")
    await stream.end()
    assert await within(seen.get()) == b"only"
    assert await within(seen.get()) is None
    assert await within(stream.receive()) == b"done"
    assert await within(stream.receive()) is None


async def test_end_after_the_handler_returned_is_no_error(cluster: Cluster) -> None:
    async def handler(stream: Stream) -> None:
        await stream.receive()

    peer = await serve_stream(cluster, handler)
    caller = cluster.node()
    for _ in range(20):
        stream = await caller.open(peer, StreamMethod.CONVERSE)
        await stream.send(b"close")
        await stream.end()
        assert await within(stream.receive()) is None


async def test_stream_cancelled_by_the_caller_is_broken_at_both_ends(cluster: Cluster) -> None:
    seen: asyncio.Future[BaseException | bytes | None] = asyncio.get_running_loop().create_future()

    async def handler(stream: Stream) -> None:
        await stream.send((await stream.receive()) or b"")
        try:
            seen.set_result(await stream.receive())
        except StreamBrokenError as error:
            seen.set_result(error)
            raise

    peer = await serve_stream(cluster, handler)
    stream = await cluster.node().open(peer, StreamMethod.CONVERSE)
    await stream.send(b"1")
    assert await within(stream.receive()) == b"1"
    stream.cancel()
    stream.cancel()
    with pytest.raises(StreamBrokenError):
        await within(stream.receive())
    with pytest.raises(StreamBrokenError):
        await within(stream.send(b"2"))
    assert isinstance(await within(seen), StreamBrokenError)


async def test_stream_cancelled_while_a_task_waits_on_it_breaks_for_that_task(cluster: Cluster) -> None:
    peer = await serve_stream(cluster, echo)
    stream = await cluster.node().open(peer, StreamMethod.CONVERSE)
    await stream.send(b"1")
    assert await within(stream.receive()) == b"1"
    waiting = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    stream.cancel()
    with pytest.raises(StreamBrokenError):
        await within(waiting)


async def test_stream_cancelled_by_the_handler_is_broken_at_both_ends(cluster: Cluster) -> None:
    seen: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def handler(stream: Stream) -> None:
        await stream.receive()
        stream.cancel()
        try:
            await stream.receive()
        except StreamBrokenError:
            seen.set_result(True)

    peer = await serve_stream(cluster, handler)
    stream = await cluster.node().open(peer, StreamMethod.CONVERSE)
    await stream.send(b"1")
    with pytest.raises(StreamBrokenError):
        await within(stream.receive())
    assert await within(seen)


@pytest.mark.parametrize("error", [WireError("garbage"), ValueError("a bug")], ids=["wire-error", "bug"])
async def test_handler_that_raises_breaks_the_stream_and_the_server_goes_on(cluster: Cluster, error: Exception) -> None:
    async def handler(stream: Stream) -> None:
        if await stream.receive() == b"bad":
            raise error
        await stream.send(b"good")

    peer = await serve_stream(cluster, handler)
    caller = cluster.node()
    stream = await caller.open(peer, StreamMethod.CONVERSE)
    await stream.send(b"bad")
    with pytest.raises(StreamBrokenError, match="garbage" if isinstance(error, WireError) else "ValueError"):
        await within(stream.receive())
    stream = await caller.open(peer, StreamMethod.CONVERSE)
    await stream.send(b"fine")
    assert await within(stream.receive()) == b"good"


async def test_sender_waits_while_the_receiver_takes_nothing(cluster: Cluster) -> None:
    opened: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
    release = asyncio.Event()

    async def handler(stream: Stream) -> None:
        opened.set_result(stream)
        await release.wait()
        while await stream.receive() is not None:
            pass

    async def pong(request: bytes) -> bytes:
        return request

    peer = await cluster.node().serve({Method.DELIVER: pong}, {StreamMethod.CONVERSE: handler})
    caller = cluster.node()
    stream = await caller.open(peer, StreamMethod.CONVERSE)
    total, sent = 64, 0

    async def send() -> None:
        nonlocal sent
        for _ in range(total):
            await stream.send(bytes(1024 * 1024))
            sent += 1
        await stream.end()

    sending = asyncio.create_task(send())
    await within(opened)
    calls_without_a_send = 0
    while calls_without_a_send < 50 and sent < total:
        before = sent
        await caller.call(peer, Method.DELIVER, b"", timeout_s=PATIENCE_S)
        calls_without_a_send = calls_without_a_send + 1 if sent == before else 0
    assert sent < total
    release.set()
    await within(sending)
    assert await within(stream.receive()) is None


async def test_cancelled_receive_breaks_the_stream(cluster: Cluster) -> None:
    peer = await serve_stream(cluster, echo)
    stream = await cluster.node().open(peer, StreamMethod.CONVERSE)
    await stream.send(b"1")
    assert await within(stream.receive()) == b"1"
    waiting = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(StreamBrokenError):
        await within(stream.receive())


async def test_stream_to_an_address_where_nobody_listens_breaks_at_once_or_at_first_use(cluster: Cluster) -> None:
    async def use() -> None:
        stream = await cluster.node().open(cluster.nowhere(), StreamMethod.CONVERSE)
        await stream.send(b"1")
        await stream.receive()

    with pytest.raises((UnreachableError, StreamBrokenError)):
        await within(use())


async def test_stream_of_a_method_that_is_not_served_breaks(cluster: Cluster) -> None:
    peer = await serve_stream(cluster, echo)
    stream = await cluster.node().open(peer, StreamMethod.FETCH)
    with pytest.raises(StreamBrokenError, match="UNIMPLEMENTED"):
        await within(stream.receive())

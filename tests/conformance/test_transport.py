"""What every transport does, whichever it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from adpsgd_node.errors import (
    BindError,
    DeadlineError,
    RemoteError,
    StreamBrokenError,
    TransportError,
    UnreachableError,
    WireError,
)
from adpsgd_node.ids import Address
from adpsgd_node.net.grpc_transport import GrpcTransport
from adpsgd_node.net.memory import MemoryNetwork
from adpsgd_node.net.slow_transport import Bandwidth, SlowTransport
from adpsgd_node.net.transport import Method, Stream, StreamMethod, Transport

PATIENCE_S = 20.0
"""Longest that any single wait of these tests may take before the test fails."""

HIGH_BYTES_PER_S = 1e9
"""So high that these tests take no longer on a slowed link; what a low one does is in its unit tests."""


class Cluster:
    """Creates transports of one kind that can reach each other, and closes them."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._network = MemoryNetwork(seed=1)
        self._transports: list[Transport] = []

    def node(self, listen: Address | None = None) -> Transport:
        transport: Transport
        if self._kind.endswith("grpc"):
            transport = GrpcTransport(listen or Address("127.0.0.1:0"))
        else:
            transport = self._network.transport(listen or Address(f"node-{len(self._transports)}:1"))
        if self._kind.startswith("slow"):
            transport = SlowTransport(transport, Bandwidth(2.0, HIGH_BYTES_PER_S))
        self._transports.append(transport)
        return transport

    def nowhere(self) -> Address:
        return Address("127.0.0.1:1")

    async def close(self) -> None:
        for transport in self._transports:
            await transport.close(grace_s=0.0)


@pytest.fixture(params=["grpc", "memory", "slow grpc", "slow memory"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    cluster = Cluster(request.param)
    yield cluster
    await cluster.close()


async def serve_call(cluster: Cluster, handler: Callable[[bytes], Awaitable[bytes]]) -> Address:
    return await cluster.node().serve({Method.DELIVER: handler}, {})


async def serve_stream(cluster: Cluster, handler: Callable[[Stream], Awaitable[None]]) -> Address:
    return await cluster.node().serve({}, {StreamMethod.CONVERSE: handler})


async def echo(stream: Stream) -> None:
    while (message := await stream.receive()) is not None:
        await stream.send(message)


async def _drain(stream: Stream) -> None:
    while await stream.receive() is not None:
        pass


async def within(awaitable: Awaitable[object]) -> object:
    return await asyncio.wait_for(awaitable, PATIENCE_S)


async def test_call_brings_the_answer_of_the_handler(cluster: Cluster) -> None:
    async def handler(request: bytes) -> bytes:
        return request[::-1]

    peer = await serve_call(cluster, handler)
    caller = cluster.node()
    assert await caller.call(peer, Method.DELIVER, b"abc", timeout_s=PATIENCE_S) == b"cba"
    assert await caller.call(peer, Method.DELIVER, b"", timeout_s=PATIENCE_S) == b""


async def test_calls_at_the_same_time_each_get_their_own_answer(cluster: Cluster) -> None:
    async def handler(request: bytes) -> bytes:
        await asyncio.sleep(0)
        return b"<" + request + b">"

    peer = await serve_call(cluster, handler)
    caller = cluster.node()
    requests = [str(number).encode() for number in range(20)]
    answers = await asyncio.gather(
        *(caller.call(peer, Method.DELIVER, request, timeout_s=PATIENCE_S) for request in requests)
    )
    assert answers == [b"<" + request + b">" for request in requests]


async def test_call_to_an_address_where_nobody_listens_is_unreachable(cluster: Cluster) -> None:
    nowhere = cluster.nowhere()
    with pytest.raises(UnreachableError, match=nowhere):
        await cluster.node().call(nowhere, Method.DELIVER, b"", timeout_s=PATIENCE_S)


async def test_call_without_an_answer_in_time_misses_its_deadline(cluster: Cluster) -> None:
    release = asyncio.Event()

    async def handler(request: bytes) -> bytes:
        await release.wait()
        return b""

    peer = await serve_call(cluster, handler)
    with pytest.raises(DeadlineError, match=peer):
        await cluster.node().call(peer, Method.DELIVER, b"", timeout_s=0.05)
    release.set()


async def test_handler_of_a_call_runs_to_its_end_when_the_caller_has_given_up(cluster: Cluster) -> None:
    release, ended = asyncio.Event(), asyncio.Event()

    async def handler(request: bytes) -> bytes:
        await release.wait()
        ended.set()
        return b""

    peer = await serve_call(cluster, handler)
    with pytest.raises(DeadlineError):
        await cluster.node().call(peer, Method.DELIVER, b"", timeout_s=0.05)
    release.set()
    await within(ended.wait())


async def test_wire_error_in_a_handler_tells_the_caller_its_text(cluster: Cluster) -> None:
    async def handler(request: bytes) -> bytes:
        raise WireError("no valid Packet")

    peer = await serve_call(cluster, handler)
    with pytest.raises(RemoteError, match=r"INVALID_ARGUMENT.*no valid Packet"):
        await cluster.node().call(peer, Method.DELIVER, b"?", timeout_s=PATIENCE_S)


async def test_bug_in_a_handler_is_a_remote_error_and_the_server_goes_on(cluster: Cluster) -> None:
    async def handler(request: bytes) -> bytes:
        return bytes([1 // len(request)])

    peer = await serve_call(cluster, handler)
    caller = cluster.node()
    with pytest.raises(RemoteError, match=r"INTERNAL.*ZeroDivisionError"):
        await caller.call(peer, Method.DELIVER, b"", timeout_s=PATIENCE_S)
    assert await caller.call(peer, Method.DELIVER, b"x", timeout_s=PATIENCE_S) == b"\x01"


async def test_method_that_is_not_served_is_a_remote_error(cluster: Cluster) -> None:
    peer = await serve_stream(cluster, echo)
    with pytest.raises(RemoteError, match="UNIMPLEMENTED"):
        await cluster.node().call(peer, Method.JOIN, b"", timeout_s=PATIENCE_S)


async def test_cancelled_call_stays_cancelled(cluster: Cluster) -> None:
    called = asyncio.Event()

    async def handler(request: bytes) -> bytes:
        called.set()
        await asyncio.Event().wait()
        return b""

    peer = await serve_call(cluster, handler)
    call = asyncio.create_task(cluster.node().call(peer, Method.DELIVER, b"", timeout_s=PATIENCE_S))
    await within(called.wait())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(call)


async def test_address_in_use_is_named_with_the_option_to_change(cluster: Cluster) -> None:
    taken = await cluster.node().serve({}, {})
    with pytest.raises(BindError, match=rf"{taken}.*--listen"):
        await cluster.node(taken).serve({}, {})


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


async def test_closing_breaks_what_does_not_end_within_the_grace(cluster: Cluster) -> None:
    broken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def handler(stream: Stream) -> None:
        try:
            await echo(stream)
        except StreamBrokenError:
            broken.set_result(True)

    server = cluster.node()
    peer = await server.serve({}, {StreamMethod.CONVERSE: handler})
    stream = await cluster.node().open(peer, StreamMethod.CONVERSE)
    await stream.send(b"1")
    assert await within(stream.receive()) == b"1"
    await within(server.close(grace_s=0.05))
    assert broken.done()
    with pytest.raises(StreamBrokenError):
        await within(stream.receive())


async def test_closing_lets_a_handler_end_within_the_grace(cluster: Cluster) -> None:
    server = cluster.node()
    peer = await server.serve({}, {StreamMethod.CONVERSE: echo})
    stream = await cluster.node().open(peer, StreamMethod.CONVERSE)
    await stream.send(b"1")
    assert await within(stream.receive()) == b"1"
    closing = asyncio.create_task(server.close(grace_s=PATIENCE_S))
    await asyncio.sleep(0)
    await stream.send(b"2")
    assert await within(stream.receive()) == b"2"
    await stream.end()
    assert await within(stream.receive()) is None
    await within(closing)


async def test_closed_transport_reaches_nobody(cluster: Cluster) -> None:
    peer = await serve_stream(cluster, echo)
    caller = cluster.node()
    stream = await caller.open(peer, StreamMethod.CONVERSE)
    await stream.send(b"1")
    await caller.close(grace_s=0.0)
    with pytest.raises(StreamBrokenError):
        await within(_drain(stream))
    with pytest.raises(UnreachableError, match="closed"):
        await caller.call(peer, Method.DELIVER, b"", timeout_s=PATIENCE_S)
    with pytest.raises(UnreachableError, match="closed"):
        await caller.open(peer, StreamMethod.CONVERSE)


async def test_node_that_closed_is_unreachable_and_its_address_free_again(cluster: Cluster) -> None:
    server = cluster.node()
    peer = await server.serve({}, {StreamMethod.CONVERSE: echo})
    caller = cluster.node()
    await server.close(grace_s=0.0)
    with pytest.raises(TransportError):
        await caller.call(peer, Method.DELIVER, b"", timeout_s=PATIENCE_S)

    async def handler(request: bytes) -> bytes:
        return b"again"

    assert await cluster.node(peer).serve({Method.DELIVER: handler}, {}) == peer
    assert await cluster.node().call(peer, Method.DELIVER, b"", timeout_s=PATIENCE_S) == b"again"

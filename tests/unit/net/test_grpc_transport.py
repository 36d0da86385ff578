"""What only the gRPC transport does; the rest is in the conformance suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from adpsgd_node.errors import (
    BindError,
    ConfigError,
    DeadlineError,
    RemoteError,
    StreamBrokenError,
    UnreachableError,
)
from adpsgd_node.ids import Address
from adpsgd_node.net.channel import MAX_SILENT_CALLS
from adpsgd_node.net.credentials import Credentials
from adpsgd_node.net.grpc_transport import GrpcTransport
from adpsgd_node.net.option import LinkConfig
from adpsgd_node.net.transport import Method, Stream, StreamMethod
from adpsgd_node.wire import limits
from adpsgd_node.wire.framing import encode_chunk
from support.tcp_path import TcpPath, read_some

LOOPBACK = Address("127.0.0.1:0")
PATIENCE_S = 20.0


async def answer(request: bytes) -> bytes:
    return request


async def echo(stream: Stream) -> None:
    while (message := await stream.receive()) is not None:
        await stream.send(message)


@pytest.fixture
async def server() -> AsyncIterator[GrpcTransport]:
    server = GrpcTransport(LOOPBACK, config=LinkConfig(max_concurrent_calls=2))
    yield server
    await server.close(grace_s=0.0)


@pytest.fixture
async def peer(server: GrpcTransport) -> Address:
    return await server.serve({Method.DELIVER: answer}, {StreamMethod.CONVERSE: echo})


@pytest.fixture
async def caller() -> AsyncIterator[GrpcTransport]:
    caller = GrpcTransport(LOOPBACK)
    yield caller
    await caller.close(grace_s=0.0)


async def test_port_zero_is_answered_with_the_port_that_was_bound(peer: Address) -> None:
    host, _, port = peer.rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0


def test_exposed_port_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        GrpcTransport(Address("0.0.0.0:0"))


async def test_exposed_port_is_bound_when_the_user_accepts_it(caller: GrpcTransport) -> None:
    server = GrpcTransport(Address("0.0.0.0:0"), credentials=Credentials(insecure=True))
    bound = await server.serve({Method.DELIVER: answer}, {})
    assert bound.startswith("0.0.0.0:")
    reached = Address(bound.replace("0.0.0.0", "127.0.0.1"))
    assert await caller.call(reached, Method.DELIVER, b"1", timeout_s=PATIENCE_S) == b"1"
    await server.close(grace_s=0.0)


async def test_host_that_is_not_of_this_machine_is_a_bind_error() -> None:
    transport = GrpcTransport(Address("192.0.2.1:0"), credentials=Credentials(insecure=True))
    with pytest.raises(BindError, match=r"192\.0\.2\.1:0.*--listen"):
        await transport.serve({}, {})
    await transport.close(grace_s=0.0)


async def test_largest_chunk_passes_both_ways(peer: Address, caller: GrpcTransport) -> None:
    message = encode_chunk(limits.MAX_CHUNK_COUNT - 1, 0, bytes(limits.MAX_CHUNK_BYTES)).message
    stream = await caller.open(peer, StreamMethod.CONVERSE)
    sending = asyncio.create_task(stream.send(message))
    assert await asyncio.wait_for(stream.receive(), PATIENCE_S) == message
    await sending
    stream.cancel()


async def test_bytes_that_are_no_http2_leave_the_server_unharmed(peer: Address, caller: GrpcTransport) -> None:
    host, _, port = peer.rpartition(":")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 5000, b"\0" * 5000):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(garbage)
        while await asyncio.wait_for(read_some(reader), PATIENCE_S):
            pass
        writer.close()
    assert await caller.call(peer, Method.DELIVER, b"1", timeout_s=PATIENCE_S) == b"1"


async def test_calls_beyond_the_limit_are_refused_at_once(peer: Address, caller: GrpcTransport) -> None:
    streams = [await caller.open(peer, StreamMethod.CONVERSE) for _ in range(2)]
    for stream in streams:
        await stream.send(b"1")
        assert await asyncio.wait_for(stream.receive(), PATIENCE_S) == b"1"
    with pytest.raises(RemoteError, match="RESOURCE_EXHAUSTED"):
        await caller.call(peer, Method.DELIVER, b"", timeout_s=PATIENCE_S)
    for stream in streams:
        stream.cancel()


async def test_peer_that_comes_back_is_found_again(server: GrpcTransport, peer: Address, caller: GrpcTransport) -> None:
    assert await caller.call(peer, Method.DELIVER, b"1", timeout_s=PATIENCE_S) == b"1"
    await server.close(grace_s=0.0)
    back = GrpcTransport(peer)
    await back.serve({Method.DELIVER: answer}, {})
    assert await caller.call(peer, Method.DELIVER, b"2", timeout_s=PATIENCE_S) == b"2"
    await back.close(grace_s=0.0)


async def test_peer_that_was_long_away_is_reached_by_the_first_call_after_its_return(
    server: GrpcTransport, peer: Address, caller: GrpcTransport
) -> None:
    assert await caller.call(peer, Method.DELIVER, b"1", timeout_s=PATIENCE_S) == b"1"
    await server.close(grace_s=0.0)
    for _ in range(20):  # as many would have gRPC wait for seconds before it tries again
        with pytest.raises(UnreachableError):
            await caller.call(peer, Method.DELIVER, b"", timeout_s=PATIENCE_S)
    stream = await caller.open(peer, StreamMethod.CONVERSE)
    with pytest.raises(StreamBrokenError):
        await asyncio.wait_for(stream.receive(), PATIENCE_S)

    back = GrpcTransport(peer)
    await back.serve({Method.DELIVER: answer}, {StreamMethod.CONVERSE: echo})

    stream = await caller.open(peer, StreamMethod.CONVERSE)
    await stream.send(b"2")
    assert await asyncio.wait_for(stream.receive(), PATIENCE_S) == b"2"
    assert await caller.call(peer, Method.DELIVER, b"3", timeout_s=PATIENCE_S) == b"3"
    stream.cancel()
    await back.close(grace_s=0.0)


async def test_path_that_swallowed_everything_is_used_again_by_the_first_call_once_it_heals(
    peer: Address, caller: GrpcTransport
) -> None:
    async with TcpPath.to(peer) as path:
        path.cut = True  # who connects meanwhile is never answered
        with pytest.raises(DeadlineError):
            await caller.call(path.address, Method.DELIVER, b"", timeout_s=0.2)
        path.cut = False

        # Old connections stay dead, as they would for a while in which TCP waits before it sends again.
        assert await caller.call(path.address, Method.DELIVER, b"1", timeout_s=PATIENCE_S) == b"1"


async def test_connection_that_was_cut_in_mid_flight_is_given_up_after_two_silent_calls(
    peer: Address, caller: GrpcTransport
) -> None:
    async with TcpPath.to(peer) as path:
        assert await caller.call(path.address, Method.DELIVER, b"1", timeout_s=PATIENCE_S) == b"1"
        path.cut = True
        for _ in range(MAX_SILENT_CALLS):
            with pytest.raises(DeadlineError):
                await caller.call(path.address, Method.DELIVER, b"", timeout_s=0.2)
        path.cut = False

        assert await caller.call(path.address, Method.DELIVER, b"2", timeout_s=PATIENCE_S) == b"2"
        assert path.connections == 2


async def test_peer_that_is_slow_once_keeps_its_connection(caller: GrpcTransport) -> None:
    server = GrpcTransport(LOOPBACK)
    go_on = asyncio.Event()

    async def hesitate(request: bytes) -> bytes:
        if request == b"slow":
            await go_on.wait()
        return request

    async with TcpPath.to(await server.serve({Method.DELIVER: hesitate}, {})) as path:
        for _ in range(2 * MAX_SILENT_CALLS):
            assert await caller.call(path.address, Method.DELIVER, b"1", timeout_s=PATIENCE_S) == b"1"
            with pytest.raises(DeadlineError):
                await caller.call(path.address, Method.DELIVER, b"slow", timeout_s=0.1)
        assert path.connections == 1
    go_on.set()
    await server.close(grace_s=0.0)

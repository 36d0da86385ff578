"""What every transport does, whichever it is."""

from __future__ import annotations

import asyncio

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
from adpsgd_node.net.transport import Method, Stream, StreamMethod
from support.transport_cluster import PATIENCE_S, Cluster, drain, echo, serve_call, serve_stream, within


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
        await within(drain(stream))
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

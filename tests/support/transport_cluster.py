"""Transports of every kind that can reach each other, for the suite that all of them have to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

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


async def serve_call(cluster: Cluster, handler: Callable[[bytes], Awaitable[bytes]]) -> Address:
    return await cluster.node().serve({Method.DELIVER: handler}, {})


async def serve_stream(cluster: Cluster, handler: Callable[[Stream], Awaitable[None]]) -> Address:
    return await cluster.node().serve({}, {StreamMethod.CONVERSE: handler})


async def echo(stream: Stream) -> None:
    while (message := await stream.receive()) is not None:
        await stream.send(message)


async def drain(stream: Stream) -> None:
    while await stream.receive() is not None:
        pass


async def within(awaitable: Awaitable[object]) -> object:
    return await asyncio.wait_for(awaitable, PATIENCE_S)

"""A peer that does not speak the protocol, or only as far as it does harm."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio

from adpsgd_node.net.transport import Method, StreamMethod

LIMIT_S = 3.0


@dataclass(slots=True)
class Stranger:
    """Sends bytes of its choice to one node and tells how the calls ended."""

    address: str
    _channel: grpc.aio.Channel

    async def call(self, method: Method, request: bytes) -> grpc.StatusCode:
        """Make one unary call; returns its status."""
        try:
            await self._channel.unary_unary(method.value)(request, timeout=LIMIT_S)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def converse(self, method: StreamMethod, messages: Iterable[bytes]) -> tuple[grpc.StatusCode, list[bytes]]:
        """Send messages over one stream, each after an answer or the end; returns status and answers."""
        call = self._channel.stream_stream(method.value)(timeout=LIMIT_S)
        answers: list[bytes] = []
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            for message in messages:
                await call.write(message)
                answer = await call.read()
                if answer is grpc.aio.EOF:
                    break
                answers.append(answer)
            await call.done_writing()
        return await call.code(), answers

    async def open_silently(self, method: StreamMethod) -> grpc.StatusCode:
        """Open a stream, say nothing, and wait until the node has had enough."""
        call = self._channel.stream_stream(method.value)(timeout=10 * LIMIT_S)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.read()
        return await call.code()

    async def shout(self, data: bytes) -> None:
        """Write to the port without any gRPC, and hang up once something comes back or nothing more goes in."""
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(ConnectionError, TimeoutError):
            writer.write(data)
            async with asyncio.timeout(LIMIT_S):
                await writer.drain()
                await reader.read(1)
        writer.close()


@asynccontextmanager
async def stranger(address: str) -> AsyncIterator[Stranger]:
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Stranger(address, channel)


def mutations(message: bytes, count: int, rng: random.Random) -> Iterable[bytes]:
    """Give copies of a valid message with some bytes changed, lost or added."""
    for _ in range(count):
        copy = bytearray(message)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(copy) + 1)
            match rng.randrange(3):
                case 0:
                    copy[at : at + 1] = rng.randbytes(1)
                case 1:
                    del copy[at : at + rng.randint(1, 8)]
                case 2:
                    copy[at:at] = rng.randbytes(rng.randint(1, 8))
        yield bytes(copy)

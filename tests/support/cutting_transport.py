"""Cut streams of any transport at a random message, at either end."""

from __future__ import annotations

import random
from collections.abc import Mapping

from adpsgd_node.errors import StreamBrokenError
from adpsgd_node.ids import Address
from adpsgd_node.net.transport import ConverseHandler, Method, Stream, StreamMethod, Transport, UnaryHandler

__all__ = ["CuttingTransport"]


class CuttingTransport(Transport):
    """Passes everything on to `inner`; each stream is cut with `probability`, at one of its first `span` messages."""

    def __init__(self, inner: Transport, rng: random.Random, *, probability: float, span: int) -> None:
        self.cuts = 0
        self.probability = probability
        self._inner = inner
        self._rng = rng
        self._span = span

    async def serve(
        self, unary: Mapping[Method, UnaryHandler], streams: Mapping[StreamMethod, ConverseHandler]
    ) -> Address:
        def cutting(handler: ConverseHandler) -> ConverseHandler:
            async def serve(stream: Stream) -> None:
                await handler(self._wrap(stream))

            return serve

        return await self._inner.serve(unary, {method: cutting(handler) for method, handler in streams.items()})

    async def call(self, peer: Address, method: Method, request: bytes, *, timeout_s: float) -> bytes:
        return await self._inner.call(peer, method, request, timeout_s=timeout_s)

    async def open(self, peer: Address, method: StreamMethod) -> Stream:
        return self._wrap(await self._inner.open(peer, method))

    async def close(self, *, grace_s: float) -> None:
        await self._inner.close(grace_s=grace_s)

    def _wrap(self, stream: Stream) -> Stream:
        if self._rng.random() >= self.probability:
            return stream
        return _CutStream(stream, self._rng.randrange(self._span), self)


class _CutStream(Stream):
    def __init__(self, inner: Stream, after: int, owner: CuttingTransport) -> None:
        self._inner = inner
        self._left = after
        self._owner = owner

    async def send(self, message: bytes) -> None:
        self._count()
        await self._inner.send(message)

    async def receive(self) -> bytes | None:
        self._count()
        return await self._inner.receive()

    async def end(self) -> None:
        await self._inner.end()

    def cancel(self) -> None:
        self._inner.cancel()

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            self._owner.cuts += 1
            self._inner.cancel()
            raise StreamBrokenError("cut by the test")

"""Make a node's link slower than it is, both ways: a transport around another one, for experiments.

Only messages of streams (exchanges, fetches) are delayed. Unary calls pass at once: they are small, so bandwidth is not
what they wait for, and a failure detector that starves behind a model would be another experiment.
"""

from __future__ import annotations

import asyncio
import statistics
import weakref
from collections import deque
from collections.abc import Mapping

from adpsgd_node.errors import StreamBrokenError
from adpsgd_node.ids import Address
from adpsgd_node.net.transport import ConverseHandler, Method, Stream, StreamMethod, Transport, UnaryHandler

__all__ = ["Bandwidth", "SlowTransport", "slowed"]

LEAST_MEASURED_BYTES = 4096
"""Sending less than this says more about the machine than about its link."""
MEASURED_SENDS = 31
"""The link is as fast as the median of so many of the last ones: some have waited for a peer that was busy."""


def slowed(transport: Transport, *, factor: float = 1.0, bytes_per_s: float = 0.0) -> Transport:
    """Return `transport` with the `factor`th part of its bandwidth; itself where there is nothing to slow down.

    bytes_per_s: bandwidth before that, each way, the same on every node; 0: as fast as sending is measured to be.
    """
    if factor == 1.0 and bytes_per_s == 0.0:
        return transport
    return SlowTransport(transport, Bandwidth(factor, bytes_per_s))


class Bandwidth:
    """Says when the messages of a link are through; all streams of a node share it, each way on its own.

    A message of n bytes takes `factor * n / bytes_per_s` on this link and `n / bytes_per_s` on one that is not slowed
    down, at the same time, as packets of it are under way on both. So what comes in has been coming for that long.
    (Between two nodes that are both slowed down it takes nearly the sum of both. And a message counts as coming from
    when it is asked for: who works between two receives gets less than the whole bandwidth.)
    """

    def __init__(self, factor: float, bytes_per_s: float) -> None:
        self._factor = factor
        self._bytes_per_s = bytes_per_s
        self._sends: deque[float] = deque(maxlen=MEASURED_SENDS)
        """Seconds that a byte took, of the last sends."""
        self._sent_at = self._received_at = float("-inf")
        """When all that was sent, or received, so far is through."""

    def sending(self, count: int, now: float) -> float:
        """Take a message of `count` bytes that is to be sent; returns when it is to be handed over."""
        plain_s = self._plain_s(count)
        took_s = self._factor * plain_s
        if not self._bytes_per_s:
            took_s -= plain_s  # handing it over will take the rest
        self._sent_at = max(now, self._sent_at) + took_s
        return self._sent_at

    def received(self, count: int, now: float) -> float:
        """Take a message of `count` bytes that is here; returns when it would be, on the slower link."""
        plain_s = self._plain_s(count)
        self._received_at = max(now - plain_s, self._received_at) + self._factor * plain_s
        return self._received_at

    def sent(self, count: int, seconds: float) -> None:
        """Note how long it took to hand a message over."""
        if count >= LEAST_MEASURED_BYTES and not self._bytes_per_s:
            self._sends.append(seconds / count)

    def _plain_s(self, count: int) -> float:
        """Return how long `count` bytes take on a link that is not slowed down.

        Where that is measured, receiving is taken to be as fast as sending: the time that a message took to come is
        mostly the time that the peer took to make it.
        """
        if self._bytes_per_s:
            return count / self._bytes_per_s
        return count * statistics.median(self._sends) if self._sends else 0.0


class SlowTransport(Transport):
    """Passes everything on to `inner`, messages of streams no faster than `bandwidth` says. Keeps none of them."""

    def __init__(self, inner: Transport, bandwidth: Bandwidth) -> None:
        self._inner = inner
        self._bandwidth = bandwidth
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()

    async def serve(
        self, unary: Mapping[Method, UnaryHandler], streams: Mapping[StreamMethod, ConverseHandler]
    ) -> Address:
        def slow(handler: ConverseHandler) -> ConverseHandler:
            async def serve(stream: Stream) -> None:
                await handler(self._wrap(stream))

            return serve

        return await self._inner.serve(unary, {method: slow(handler) for method, handler in streams.items()})

    async def call(self, peer: Address, method: Method, request: bytes, *, timeout_s: float) -> bytes:
        return await self._inner.call(peer, method, request, timeout_s=timeout_s)

    async def open(self, peer: Address, method: StreamMethod) -> Stream:
        return self._wrap(await self._inner.open(peer, method))

    async def close(self, *, grace_s: float) -> None:
        # What waits for bandwidth by then would not notice that the transport beneath has closed.
        cutting = asyncio.get_running_loop().call_later(grace_s, self._cut)
        try:
            await self._inner.close(grace_s=grace_s)
        finally:
            cutting.cancel()
            self._cut()

    def _wrap(self, stream: Stream) -> Stream:
        slow = _SlowStream(stream, self._bandwidth)
        self._streams.add(slow)
        return slow

    def _cut(self) -> None:
        for stream in tuple(self._streams):
            stream.cancel()


class _SlowStream(Stream):
    def __init__(self, inner: Stream, bandwidth: Bandwidth) -> None:
        self._inner = inner
        self._bandwidth = bandwidth
        self._cancelled = asyncio.Event()

    async def send(self, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        await self._pass(self._bandwidth.sending(len(message), loop.time()))
        began = loop.time()
        await self._inner.send(message)
        self._bandwidth.sent(len(message), loop.time() - began)

    async def receive(self) -> bytes | None:
        message = await self._inner.receive()
        if message is not None:
            try:
                await self._pass(self._bandwidth.received(len(message), asyncio.get_running_loop().time()))
            except asyncio.CancelledError:
                self.cancel()  # the message is lost
                raise
        return message

    async def end(self) -> None:
        await self._inner.end()

    def cancel(self) -> None:
        self._cancelled.set()
        self._inner.cancel()

    async def _pass(self, until: float) -> None:
        """Wait until a message is through. Raises `StreamBrokenError` when the stream is cancelled meanwhile."""
        if until > asyncio.get_running_loop().time():
            try:
                async with asyncio.timeout_at(until):
                    await self._cancelled.wait()
            except TimeoutError:
                return
            raise StreamBrokenError("this node cancelled the stream while a message was under way")

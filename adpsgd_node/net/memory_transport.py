"""Give one node its face to the in-memory network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from adpsgd_node.errors import AdpsgdError, DeadlineError, RemoteError, TransportError, UnreachableError, WireError
from adpsgd_node.ids import Address
from adpsgd_node.net.memory_stream import MemoryStream
from adpsgd_node.net.transport import ConverseHandler, Method, Stream, StreamMethod, Transport, UnaryHandler

if TYPE_CHECKING:
    from adpsgd_node.net.memory import MemoryNetwork

__all__ = ["MemoryTransport"]

MAX_HANDLERS = 256
"""Most calls and streams one node answers at once; more are refused at once."""

HANDLER_END_S = 5.0
"""How long the handler of a broken stream may take to end by itself when its transport closes."""

_log = logging.getLogger(__name__)


class MemoryTransport(Transport):
    """Behaves as the gRPC transport does: handlers run in tasks of their own and are never cancelled by their peer."""

    def __init__(self, network: MemoryNetwork, address: Address) -> None:
        self.address = address
        self._network = network
        self._unary: Mapping[Method, UnaryHandler] = {}
        self._streams: Mapping[StreamMethod, ConverseHandler] = {}
        # dicts keep their order, sets do not: cancelling would not be deterministic
        self._calls: dict[asyncio.Future[Any], None] = {}
        self._conversations: dict[asyncio.Future[Any], None] = {}
        self._closed = False

    async def serve(
        self, unary: Mapping[Method, UnaryHandler], streams: Mapping[StreamMethod, ConverseHandler]
    ) -> Address:
        self._unary, self._streams = dict(unary), dict(streams)
        self._network.attach(self)
        return self.address

    async def call(self, peer: Address, method: Method, request: bytes, *, timeout_s: float) -> bytes:
        what = f"{method.value} to {peer}"
        self._raise_if_closed(what)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(peer, method, request, what)
        except TimeoutError:
            raise DeadlineError(f"{what}: no answer in time") from None

    async def open(self, peer: Address, method: StreamMethod) -> Stream:
        what = f"{method.value} to {peer}"
        self._raise_if_closed(what)
        if self._network.node(peer) is None:
            raise UnreachableError(f"{what}: nobody listens there")
        return self._network.connect(self.address, peer, method)

    async def close(self, *, grace_s: float) -> None:
        self._closed = True
        self._network.detach(self)
        await self._wait_for_handlers(grace_s)
        self._network.break_streams(self.address, f"{self.address} is closing")
        for call in list(self._calls):
            call.cancel()
        await self._wait_for_handlers(HANDLER_END_S)
        self.vanish()

    def vanish(self) -> None:
        """Stop all handlers where they are; to be called after `detach`."""
        self._closed = True
        for task in (*self._calls, *self._conversations):
            task.cancel()

    def answer(self, method: StreamMethod, stream: MemoryStream, done: Callable[[], object]) -> None:
        """Serve a stream that a peer opened; calls `done` when that has ended."""
        handler = self._streams.get(method)
        if handler is None or self._handler_count >= MAX_HANDLERS:
            stream.break_off("UNIMPLEMENTED" if handler is None else "RESOURCE_EXHAUSTED")
            done()
        else:
            task = _start(self._run(handler(stream), stream, method), self._conversations)
            task.add_done_callback(lambda _: done())

    async def answer_call(self, method: Method, request: bytes, what: str) -> bytes:
        """Serve a unary call. Raises `RemoteError`."""
        handler = self._unary.get(method)
        if handler is None or self._handler_count >= MAX_HANDLERS:
            raise RemoteError(f"{what}: {'UNIMPLEMENTED' if handler is None else 'RESOURCE_EXHAUSTED'}")
        task = _start(handler(request), self._calls)
        await asyncio.wait((task,))
        if task.cancelled():
            raise UnreachableError(f"{what}: the peer is shutting down")
        match task.exception():
            case None:
                answer: bytes = task.result()
                return answer
            case WireError() as error:
                raise RemoteError(f"{what}: the peer answered INVALID_ARGUMENT: {error}")
            case AdpsgdError() as error:
                raise RemoteError(f"{what}: the peer answered ABORTED: {error}")
            case error:
                _log.error("handler of %s failed", method.value, exc_info=error)
                raise RemoteError(f"{what}: the peer answered INTERNAL: {type(error).__name__}")

    async def _exchange(self, peer: Address, method: Method, request: bytes, what: str) -> bytes:
        """Carry the request there and the answer, or the error, back; what is lost leaves only the deadline."""
        if not await self._network.carry(self.address, peer):
            await asyncio.Event().wait()
        node = self._network.node(peer)
        if node is None:
            raise UnreachableError(f"{what}: nobody listens there")
        answer: bytes | TransportError
        try:
            answer = await node.answer_call(method, request, what)
        except TransportError as error:
            answer = error
        if not await self._network.carry(peer, self.address):
            await asyncio.Event().wait()
        if isinstance(answer, TransportError):
            raise answer
        return answer

    async def _run(self, handling: Awaitable[None], stream: MemoryStream, method: StreamMethod) -> None:
        try:
            await handling
        except AdpsgdError as error:
            stream.break_off(str(error))
        except Exception as error:
            _log.error("handler of %s failed", method.value, exc_info=error)
            stream.break_off(f"{type(error).__name__} in the answering node; see its log")
        except asyncio.CancelledError:
            stream.break_off(f"{self.address} is stopping")
            raise
        else:
            stream.finish()

    async def _wait_for_handlers(self, timeout_s: float) -> None:
        running = (*self._calls, *self._conversations)
        if running:
            await asyncio.wait(running, timeout=timeout_s)

    @property
    def _handler_count(self) -> int:
        return len(self._calls) + len(self._conversations)

    def _raise_if_closed(self, what: str) -> None:
        if self._closed:
            raise UnreachableError(f"{what}: this node's transport is closed")


def _start(handling: Awaitable[Any], running: dict[asyncio.Future[Any], None]) -> asyncio.Future[Any]:
    task = asyncio.ensure_future(handling)
    running[task] = None
    task.add_done_callback(lambda _: running.pop(task, None))
    return task

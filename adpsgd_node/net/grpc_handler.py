"""Serve handlers of the transport contract as gRPC methods.

A handler runs in a task of its own and is never cancelled by its peer: when a call breaks, a stream's handler sees
`StreamBrokenError` at its next use, and a unary handler runs to its end with nobody to answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from adpsgd_node.errors import AdpsgdError, WireError
from adpsgd_node.net.grpc_stream import AnswerStream
from adpsgd_node.net.transport import ConverseHandler, Method, StreamMethod, UnaryHandler

__all__ = ["HANDLER_END_S", "HandlerSet"]

HANDLER_END_S = 5.0
"""How long the handler of a broken call may take to end by itself before it is cancelled."""

_log = logging.getLogger(__name__)


class HandlerSet:
    """The handlers of one server, and the tasks in which they run now."""

    def __init__(self, unary: Mapping[Method, UnaryHandler], streams: Mapping[StreamMethod, ConverseHandler]) -> None:
        self._unary = unary
        self._streams = streams
        self._calls: set[asyncio.Future[bytes]] = set()
        self._conversations: set[asyncio.Future[None]] = set()

    def grpc_handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return one gRPC handler per service; messages stay bytes."""
        services: dict[str, dict[str, grpc.RpcMethodHandler]] = defaultdict(dict)
        for method, unary_handler in self._unary.items():
            service, name = method.value.removeprefix("/").split("/")
            services[service][name] = grpc.unary_unary_rpc_method_handler(self._call(unary_handler, method))
        for stream_method, stream_handler in self._streams.items():
            service, name = stream_method.value.removeprefix("/").split("/")
            answer = self._conversation(stream_handler, stream_method)
            services[service][name] = grpc.stream_stream_rpc_method_handler(answer)
        return [grpc.method_handlers_generic_handler(service, methods) for service, methods in services.items()]

    async def end(self) -> None:
        """Wait for the handlers that are left once the server has stopped; cancel those with nobody to answer."""
        for call in self._calls:
            call.cancel()
        running: tuple[asyncio.Future[Any], ...] = (*self._calls, *self._conversations)
        if running:
            await asyncio.wait(running, timeout=2 * HANDLER_END_S)

    def _call(self, handler: UnaryHandler, method: Method) -> Any:
        async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            task = asyncio.ensure_future(handler(request))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError:
                await _let_end(task)
                raise
            await _abort_if_failed(task, context, method.value)
            return task.result()

        return answer

    def _conversation(self, handler: ConverseHandler, method: StreamMethod) -> Any:
        async def answer(_: object, context: grpc.aio.ServicerContext) -> None:
            # At once: a handler cancelled within its first write would leave gRPC unsure whether metadata went out,
            # and then its `abort` fails and the caller hears nothing until its deadline.
            await context.send_initial_metadata(())
            stream = AnswerStream(context, f"{method.value} from {context.peer()}")
            task = asyncio.ensure_future(handler(stream))
            self._conversations.add(task)
            task.add_done_callback(self._conversations.discard)
            broken = asyncio.ensure_future(stream.broken.wait())
            try:
                await asyncio.wait((task, broken), return_when=asyncio.FIRST_COMPLETED)
                await _abort_if_failed(task, context, method.value)
                if stream.broken.is_set():
                    await context.abort(grpc.StatusCode.ABORTED, "the answering node broke the stream")
            finally:
                # Reached with the task running when the peer, its connection or this server went away, or when the
                # handler broke the stream. gRPC frees the context after this, so the task has to be done with it.
                stream.cancel()
                broken.cancel()
                await _let_end(task)

        return answer


async def _let_end(task: asyncio.Future[Any]) -> None:
    """Wait until `task` has ended, cancelling it after `HANDLER_END_S`; its outcome interests nobody any more."""
    try:
        await asyncio.wait((task,), timeout=HANDLER_END_S)
    finally:
        if not task.done():
            task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()  # retrieved, lest asyncio reports it


async def _abort_if_failed(task: asyncio.Future[Any], context: grpc.aio.ServicerContext, method: str) -> None:
    if not task.done():
        return
    if task.cancelled():
        await context.abort(grpc.StatusCode.CANCELLED, "the answering node is stopping")
    error = task.exception()
    match error:
        case None:
            return
        case WireError():
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        case AdpsgdError():
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        case _:
            _log.error("handler of %s failed", method, exc_info=error)
            await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__} in the answering node; see its log")

"""Carry a `Stream` over one gRPC call: the caller's end and the answering end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import grpc.aio

from adpsgd_node.errors import StreamBrokenError
from adpsgd_node.net.rpc_error import RPC_FAILURES, broken_stream, task_is_cancelled
from adpsgd_node.net.transport import Stream
from adpsgd_node.wire import limits

__all__ = ["BREAK_NOTICE_S", "AnswerStream", "CallerStream"]

BREAK_NOTICE_S = 0.2
"""gRPC tells a server first that nothing more will come and, an instant later, whether the call broke: this is how
long the answering end waits for the second word before it believes in a clean end."""


class CallerStream(Stream):
    """The end of a stream that this node opened."""

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall,
        name: str,
        *,
        released: Callable[[], None],
        unreachable: Callable[[], None],
    ) -> None:
        """`released` is called once the call is over, `unreachable` when it found no connection, or lost it."""
        self._call = call
        self._name = name
        self._unreachable = unreachable
        call.add_done_callback(lambda _: released())

    async def send(self, message: bytes) -> None:
        _check_size(message, self._name)
        try:
            await self._call.write(message)
        except asyncio.CancelledError as error:
            raise self._cancellation(error) from None
        except RPC_FAILURES as error:
            raise self._failure(error) from error

    async def receive(self) -> bytes | None:
        try:
            message = await self._call.read()
        except asyncio.CancelledError as error:
            raise self._cancellation(error) from None
        except RPC_FAILURES as error:
            raise self._failure(error) from error
        return None if message is grpc.aio.EOF else message

    async def end(self) -> None:
        try:
            await self._call.done_writing()
        except asyncio.CancelledError as error:
            raise self._cancellation(error) from None
        except RPC_FAILURES:
            # The peer ended or broke the stream first; `receive` says which.
            return

    def cancel(self) -> None:
        self._call.cancel()

    def _failure(self, error: BaseException) -> StreamBrokenError:
        if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE:
            self._unreachable()
        return broken_stream(self._name, error)

    def _cancellation(self, error: asyncio.CancelledError) -> BaseException:
        """Return what to raise: the task's own cancellation, or a broken stream when only the call was cancelled."""
        return error if task_is_cancelled() else broken_stream(self._name, None)


class AnswerStream(Stream):
    """The end of a stream that a peer opened; used by one handler, in a task of its own."""

    def __init__(self, context: grpc.aio.ServicerContext, name: str) -> None:
        self._context = context
        self._name = name
        self._ended = False
        self.broken = asyncio.Event()
        """Set once the stream is broken from either end; the context must not be touched after that."""

    async def send(self, message: bytes) -> None:
        _check_size(message, self._name)
        self._raise_if_broken()
        try:
            await self._context.write(message)
        except RPC_FAILURES as error:
            raise broken_stream(self._name, error) from error

    async def receive(self) -> bytes | None:
        if self._ended:
            return None
        self._raise_if_broken()
        try:
            message = await self._context.read()
        except asyncio.CancelledError:
            self.cancel()  # a message may have been lost with the read
            raise
        except RPC_FAILURES as error:
            raise broken_stream(self._name, error) from error
        if message is not grpc.aio.EOF:
            return message  # type: ignore[no-any-return]
        await self._wait_for_break()
        self._ended = True
        return None

    async def end(self) -> None:
        raise AssertionError(f"{self._name}: the answering end ends when its handler returns")

    def cancel(self) -> None:
        self.broken.set()

    def _raise_if_broken(self) -> None:
        if self.broken.is_set():
            raise StreamBrokenError(f"{self._name}: broken")

    async def _wait_for_break(self) -> None:
        """Raise `StreamBrokenError` if the missing message turns out to be a break."""
        try:
            async with asyncio.timeout(BREAK_NOTICE_S):
                await self.broken.wait()
        except TimeoutError:
            return
        self._raise_if_broken()


def _check_size(message: bytes, name: str) -> None:
    assert len(message) <= limits.MAX_MESSAGE_BYTES, f"{name}: a message of {len(message)} bytes"

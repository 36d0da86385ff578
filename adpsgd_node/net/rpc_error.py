"""Translate what gRPC raises into the project's errors."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from adpsgd_node.errors import DeadlineError, RemoteError, StreamBrokenError, TransportError, UnreachableError
from adpsgd_node.ids import Address

__all__ = ["RPC_FAILURES", "broken_stream", "failed_call", "task_is_cancelled"]

RPC_FAILURES = (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
"""What operations on a call may raise, apart from `CancelledError`."""

_DETAIL_CHARACTERS = 300

_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # CANCELLED: the peer is shutting down


def failed_call(peer: Address, method: str, error: BaseException) -> TransportError:
    """Return the error for a unary call that failed with `error`."""
    what = f"{method} to {peer}"
    if not isinstance(error, grpc.aio.AioRpcError):
        return UnreachableError(f"{what}: {_shorten(str(error)) or 'the connection was closed'}")
    code, detail = error.code(), _shorten(error.details() or "")
    if code in _UNREACHABLE:
        return UnreachableError(f"{what}: {detail or 'no connection'}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(f"{what}: no answer in time")
    return RemoteError(f"{what}: the peer answered {code.name}: {detail}")


def broken_stream(stream: str, error: BaseException | None) -> StreamBrokenError:
    """Return the error for a stream that ended before its protocol did."""
    if isinstance(error, grpc.aio.AioRpcError):
        return StreamBrokenError(f"{stream}: {error.code().name}: {_shorten(error.details() or '')}")
    return StreamBrokenError(f"{stream}: {_shorten(str(error)) if error else 'broken'}")


def task_is_cancelled() -> bool:
    """Tell whether a `CancelledError` is meant for the running task.

    gRPC raises it as well in tasks that wait on a call which somebody else cancelled; those must see a broken stream.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _shorten(text: str) -> str:
    return text if len(text) <= _DETAIL_CHARACTERS else text[:_DETAIL_CHARACTERS] + "..."

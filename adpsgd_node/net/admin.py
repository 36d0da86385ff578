"""Serve and call a daemon's admin methods over a unix socket that only its user can open."""

from __future__ import annotations

import asyncio
import enum
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from adpsgd_node.errors import AdpsgdError, BindError, DeadlineError, RemoteError, UnreachableError, WireError

__all__ = ["AdminHandler", "AdminMethod", "AdminServer", "ask_admin", "daemon_pid"]

SERVICE = "adpsgd.v1.Admin"
MAX_PATH_BYTES = 100
"""A unix socket's path may have 107 bytes; gRPC needs a few."""
MAX_CALLS = 16
"""Calls answered at one time; further ones are refused."""
MAX_REQUEST_BYTES = 4 << 10
MAX_ANSWER_BYTES = 8 << 20
"""A status lists all members; gRPC's own limit of 4 MiB would be too small for the largest run."""
CLOSE_GRACE_S = 0.2
"""How long a call may still take once the daemon ends: one that waits for a checkpoint hears that it will not come."""


class AdminMethod(enum.Enum):
    """What the CLI can ask; the value is the method's name in the published schema."""

    STATUS = "Status"
    DRAIN = "Drain"
    CHECKPOINT = "Checkpoint"


AdminHandler = Callable[[bytes], Awaitable[bytes]]
"""Answers one call. What it raises is told to the caller if it is an `AdpsgdError`."""


class AdminServer:
    """The answering side."""

    def __init__(self, path: Path, handlers: Mapping[AdminMethod, AdminHandler]) -> None:
        self.path = path
        self._handlers = handlers
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Bind the socket, replacing one that a dead daemon left. Raises `BindError`."""
        if len(os.fsencode(self.path)) > MAX_PATH_BYTES:
            raise BindError(
                f"the admin socket's path {self.path} is longer than {MAX_PATH_BYTES} bytes: shorten XDG_RUNTIME_DIR"
            )
        self.path.unlink(missing_ok=True)
        options = [("grpc.max_receive_message_length", MAX_REQUEST_BYTES)]
        server = grpc.aio.server(maximum_concurrent_rpcs=MAX_CALLS, options=options)
        methods = {
            method.value: grpc.unary_unary_rpc_method_handler(_answering(handler))
            for method, handler in self._handlers.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        try:
            server.add_insecure_port(f"unix:{self.path}")
            await server.start()
            self.path.chmod(0o600)
        except (RuntimeError, OSError) as error:
            raise BindError(
                f"cannot bind the admin socket {self.path}: {error}; set XDG_RUNTIME_DIR to a writable folder"
            ) from error
        self._server = server

    async def close(self) -> None:
        """Stop answering and remove the socket."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(CLOSE_GRACE_S)
            self.path.unlink(missing_ok=True)


async def ask_admin(path: Path, method: AdminMethod, request: bytes, timeout_s: float) -> bytes:
    """Make one call to the daemon behind a socket.

    Raises `RemoteError` with what the daemon says, `UnreachableError` when none answers, or `DeadlineError`.
    """
    options = [("grpc.max_receive_message_length", MAX_ANSWER_BYTES)]
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
        try:
            answer: bytes = await channel.unary_unary(f"/{SERVICE}/{method.value}")(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _failure(path, method, timeout_s, error) from error
    return answer


def daemon_pid(path: Path) -> int:
    """Return the process id of the daemon that listens on a socket; 0 when it has none that is known here.

    As the kernel sees it: a daemon in a container has another number inside. Raises `UnreachableError`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            raise UnreachableError(f"no daemon answers at {path}: {error.strerror}") from error
        credentials = struct.Struct("3i")  # pid, uid, gid
        pid, _, _ = credentials.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))
    return int(pid)


def _answering(handler: AdminHandler) -> Any:
    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            return await handler(request)
        except WireError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except AdpsgdError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except asyncio.CancelledError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the daemon is ending")
        raise AssertionError("abort raises")

    return answer


def _failure(path: Path, method: AdminMethod, timeout_s: float, error: grpc.aio.AioRpcError) -> AdpsgdError:
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError(f"the daemon behind {path} did not answer within {timeout_s:g} s")
        case grpc.StatusCode.UNIMPLEMENTED:
            return RemoteError(f"the daemon behind {path} knows no {method.value}: it runs an older version")
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.FAILED_PRECONDITION:
            return RemoteError(error.details() or "the daemon does not say why")
        case _:
            return UnreachableError(f"no daemon answers at {path}: {error.details()}")

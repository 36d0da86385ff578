"""Serve and ask a daemon's status over a unix socket that only its user can open."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio

from adpsgd_node.errors import BindError, DeadlineError, UnreachableError

__all__ = ["AdminServer", "ask_admin"]

STATUS = "/adpsgd.v1.Admin/Status"
MAX_PATH_BYTES = 100
"""A unix socket's path may have 107 bytes; gRPC needs a few."""


class AdminServer:
    """The answering side; `status` gives a serialized StatusResponse at once."""

    def __init__(self, path: Path, status: Callable[[], bytes]) -> None:
        self.path = path
        self._status = status
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Bind the socket, replacing one that a dead daemon left. Raises `BindError`."""
        if len(os.fsencode(self.path)) > MAX_PATH_BYTES:
            raise BindError(
                f"the admin socket's path {self.path} is longer than {MAX_PATH_BYTES} bytes: shorten XDG_RUNTIME_DIR"
            )
        self.path.unlink(missing_ok=True)
        server = grpc.aio.server(maximum_concurrent_rpcs=16)
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("adpsgd.v1.Admin", {"Status": handler}),))
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
            await server.stop(0.2)
            self.path.unlink(missing_ok=True)

    async def _answer(self, request: bytes, context: object) -> bytes:
        del request, context
        return self._status()


async def ask_admin(path: Path, request: bytes, timeout_s: float) -> bytes:
    """Ask a daemon for its status; returns a serialized StatusResponse. Raises `UnreachableError`, `DeadlineError`."""
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        try:
            answer: bytes = await channel.unary_unary(STATUS)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise DeadlineError(f"the daemon behind {path} did not answer within {timeout_s:g} s") from error
            raise UnreachableError(f"no daemon answers at {path}: {error.details()}") from error
    return answer

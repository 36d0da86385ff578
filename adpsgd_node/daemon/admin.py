"""Own a node's admin socket, one a name and run on this machine; and call other daemons' sockets."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from adpsgd_node.errors import AdpsgdError, NameInUseError, RemoteError
from adpsgd_node.net.admin import AdminMethod, AdminServer, ask_admin, daemon_pid
from adpsgd_node.wire.admin import (
    STATUS_REQUEST,
    Draining,
    Status,
    decode_checkpoint_request,
    decode_checkpointed,
    decode_drain_request,
    decode_draining,
    decode_status,
    encode_checkpoint_request,
    encode_checkpointed,
    encode_drain_request,
    encode_draining,
    encode_status,
)

__all__ = ["Admin", "AdminHost", "daemon_pid", "fetch_status", "request_checkpoint", "request_drain"]

CALL_MARGIN_S = 5.0
"""How much longer than the daemon may take for it the caller of a checkpoint waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminHost:
    """What the node does when it is asked."""

    status: Callable[[], Status]
    drain: Callable[[float], float]
    """Begin to leave within so many seconds, 0: as configured; returns the seconds. Returns at once."""
    checkpoint: Callable[[float], Awaitable[Path]]
    """Write a checkpoint within so many seconds, 0: the usual. What it raises becomes the problem told."""


class Admin:
    """The admin socket `<folder>/<run>.<name>.sock`, held by a lock so that a second node of this name sees it."""

    def __init__(self, folder: Path, run: str, name: str, host: AdminHost) -> None:
        self._path = folder / f"{run}.{name}.sock"
        self._lock = folder / f"{run}.{name}.lock"
        self._name = name
        self._run = run
        self._host = host
        self._lock_fd = -1
        self._server = AdminServer(
            self._path,
            {
                AdminMethod.STATUS: self._status,
                AdminMethod.DRAIN: self._drain,
                AdminMethod.CHECKPOINT: self._checkpoint,
            },
        )

    async def start(self) -> None:
        """Raises `NameInUseError` when a node of this name and run runs on this machine already, or `BindError`."""
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise NameInUseError(
                f"a node named {self._name!r} of run {self._run!r} runs on this machine already (process {holder}): "
                "give this one another --name"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd
        await self._server.start()

    async def close(self) -> None:
        """Stop answering; may be repeated."""
        if self._lock_fd < 0:
            return
        await self._server.close()
        # The lock file stays: removing it would let two later nodes lock two different files of that name.
        os.close(self._lock_fd)
        self._lock_fd = -1

    async def _status(self, request: bytes) -> bytes:
        del request  # it has no fields
        return encode_status(self._host.status())

    async def _drain(self, request: bytes) -> bytes:
        timeout_s = self._host.drain(decode_drain_request(request))
        return encode_draining(Draining(os.getpid(), timeout_s))

    async def _checkpoint(self, request: bytes) -> bytes:
        timeout_s = decode_checkpoint_request(request)
        try:
            path = await self._host.checkpoint(timeout_s)
        except AdpsgdError as error:
            return encode_checkpointed("", str(error))
        return encode_checkpointed(str(path))


async def fetch_status(socket_path: Path, timeout_s: float) -> Status:
    """Ask the daemon behind a socket. Raises `TransportError` or `WireError`."""
    return decode_status(await ask_admin(socket_path, AdminMethod.STATUS, STATUS_REQUEST, timeout_s))


async def request_drain(socket_path: Path, drain_timeout_s: float, timeout_s: float) -> Draining:
    """Have the daemon behind a socket begin to leave; 0 seconds: as it is configured. Raises as `fetch_status`."""
    request = encode_drain_request(drain_timeout_s)
    return decode_draining(await ask_admin(socket_path, AdminMethod.DRAIN, request, timeout_s))


async def request_checkpoint(socket_path: Path, checkpoint_timeout_s: float) -> Path:
    """Have the daemon behind a socket write a checkpoint. Raises `RemoteError` with why not, or as `fetch_status`."""
    request = encode_checkpoint_request(checkpoint_timeout_s)
    answer = await ask_admin(socket_path, AdminMethod.CHECKPOINT, request, checkpoint_timeout_s + CALL_MARGIN_S)
    path, problem = decode_checkpointed(answer)
    if problem:
        raise RemoteError(problem)
    return Path(path)

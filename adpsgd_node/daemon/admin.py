"""Own a node's admin socket, one a name and run on this machine; and ask other daemons' sockets."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from adpsgd_node.errors import NameInUseError
from adpsgd_node.net.admin import AdminServer, ask_admin
from adpsgd_node.wire.admin import STATUS_REQUEST, Status, decode_status, encode_status

__all__ = ["Admin", "fetch_status"]


class Admin:
    """The admin socket `<folder>/<run>.<name>.sock`, held by a lock so that a second node of this name sees it."""

    def __init__(self, folder: Path, run: str, name: str, status: Callable[[], Status]) -> None:
        self._path = folder / f"{run}.{name}.sock"
        self._lock = folder / f"{run}.{name}.lock"
        self._name = name
        self._run = run
        self._lock_fd = -1
        self._server = AdminServer(self._path, lambda: encode_status(status()))

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


async def fetch_status(socket_path: Path, timeout_s: float) -> Status:
    """Ask the daemon behind a socket. Raises `TransportError` or `WireError`."""
    return decode_status(await ask_admin(socket_path, STATUS_REQUEST, timeout_s))

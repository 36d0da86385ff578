"""The admin socket answers its own methods, passes errors on in words, and keeps to its limits."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adpsgd_node.errors import BindError, CheckpointError, DeadlineError, RemoteError, UnreachableError, WireError
from adpsgd_node.net import admin
from adpsgd_node.net.admin import AdminHandler, AdminMethod, AdminServer, ask_admin, daemon_pid

PATIENCE_S = 20.0


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="admin-") as folder:  # a socket's path must be short
        yield Path(folder) / "a.sock"


@asynccontextmanager
async def serving(path: Path, handlers: Mapping[AdminMethod, AdminHandler]) -> AsyncIterator[AdminServer]:
    server = AdminServer(path, handlers)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def mode(path: Path) -> int | None:
    """Return who may do what with a file; None when there is none."""
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


async def echo(request: bytes) -> bytes:
    return b"<" + request + b">"


async def test_each_method_has_its_own_handler(path: Path) -> None:
    async def other(request: bytes) -> bytes:
        return b"other " + request

    async with serving(path, {AdminMethod.STATUS: echo, AdminMethod.DRAIN: other}):
        assert await ask_admin(path, AdminMethod.STATUS, b"1", PATIENCE_S) == b"<1>"
        assert await ask_admin(path, AdminMethod.DRAIN, b"2", PATIENCE_S) == b"other 2"


async def test_what_a_handler_raises_on_purpose_is_told_in_its_words(path: Path) -> None:
    async def refuse(request: bytes) -> bytes:
        raise (WireError if request else CheckpointError)("no room: free some space")

    async with serving(path, {AdminMethod.CHECKPOINT: refuse}):
        for request in (b"", b"x"):
            with pytest.raises(RemoteError, match="^no room: free some space$"):
                await ask_admin(path, AdminMethod.CHECKPOINT, request, PATIENCE_S)


async def test_a_method_that_an_older_daemon_lacks_is_named(path: Path) -> None:
    async with serving(path, {AdminMethod.STATUS: echo}):
        with pytest.raises(RemoteError, match="knows no Drain: it runs an older version"):
            await ask_admin(path, AdminMethod.DRAIN, b"", PATIENCE_S)


async def test_a_daemon_that_does_not_answer_in_time_is_not_waited_for(path: Path) -> None:
    async def hang(request: bytes) -> bytes:
        await asyncio.Event().wait()
        return request

    async with serving(path, {AdminMethod.STATUS: hang}):
        with pytest.raises(DeadlineError, match=r"within 0\.05 s"):
            await ask_admin(path, AdminMethod.STATUS, b"", 0.05)


async def test_a_call_that_waits_when_the_daemon_ends_is_answered(path: Path) -> None:
    asked = asyncio.Event()

    async def hang(request: bytes) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        return request

    async with serving(path, {AdminMethod.CHECKPOINT: hang}):
        call = asyncio.create_task(ask_admin(path, AdminMethod.CHECKPOINT, b"", PATIENCE_S))
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
    with pytest.raises(UnreachableError):
        await call


async def test_an_oversized_request_does_not_reach_the_handler(path: Path) -> None:
    reached: list[int] = []

    async def note(request: bytes) -> bytes:
        reached.append(len(request))
        return b""

    async with serving(path, {AdminMethod.STATUS: note}):
        with pytest.raises(UnreachableError):
            await ask_admin(path, AdminMethod.STATUS, bytes(admin.MAX_REQUEST_BYTES + 1), PATIENCE_S)
        await ask_admin(path, AdminMethod.STATUS, bytes(admin.MAX_REQUEST_BYTES - 16), PATIENCE_S)
    assert reached == [admin.MAX_REQUEST_BYTES - 16]


async def test_an_answer_above_grpcs_own_limit_arrives(path: Path) -> None:
    async def much(request: bytes) -> bytes:
        return bytes(6 << 20)

    async with serving(path, {AdminMethod.STATUS: much}):
        assert len(await ask_admin(path, AdminMethod.STATUS, b"", PATIENCE_S)) == 6 << 20


async def test_the_process_behind_a_socket_is_known_from_the_kernel(path: Path) -> None:
    async with serving(path, {AdminMethod.STATUS: echo}):
        assert daemon_pid(path) == os.getpid()
        assert await ask_admin(path, AdminMethod.STATUS, b"", PATIENCE_S) == b"<>"


async def test_only_the_user_may_open_the_socket_and_it_goes_with_the_server(path: Path) -> None:
    async with serving(path, {AdminMethod.STATUS: echo}):
        assert mode(path) == 0o600
    assert mode(path) is None
    with pytest.raises(UnreachableError, match="no daemon answers"):
        daemon_pid(path)
    with pytest.raises(UnreachableError, match="no daemon answers"):
        await ask_admin(path, AdminMethod.STATUS, b"", PATIENCE_S)


async def test_a_path_too_long_for_a_socket_is_refused_with_the_fix(path: Path) -> None:
    with pytest.raises(BindError, match="shorten XDG_RUNTIME_DIR"):
        await AdminServer(path.with_name("n" * 100), {}).start()

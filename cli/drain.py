"""Have a node of this machine leave its run in good order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from adpsgd_cli.lookup import ASK_TIMEOUT_S, Wanted, find_one
from adpsgd_node.errors import AdpsgdError

__all__ = ["DRAIN_EPILOG", "drain"]

MARGIN_S = 15.0
"""How much longer than it gave itself the daemon is waited for: a kernel may be slow to take a large process away."""

DRAIN_EPILOG = (
    "Exit codes: 0 the node has left (with --no-wait: it has begun to); 1 no such node runs here, it did not end in "
    "time, or it ended without taking leave; 2 wrong options; 130 interrupted, the node leaves all the same."
)


def drain(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Which node of this machine.", show_default=False)
    ] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Which run, if several run here.")] = None,
    socket: Annotated[
        Path | None, typer.Option("--socket", metavar="PATH", help="Admin socket of a daemon, instead of a name.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=1.0, help="Time to leave in; default: its --drain-timeout."),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it has ended.")] = False,
) -> None:
    """Have a node leave its run: settle, exchange a last time, write a checkpoint, say goodbye, end.

    What it learnt stays with the others, and they do not take its going for a failure. SIGTERM to the daemon does the
    same. A second SIGTERM ends it at once.
    """
    try:
        asyncio.run(_drain(Wanted(name, run, socket), timeout or 0.0, wait=not no_wait))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _drain(wanted: Wanted, timeout_s: float, *, wait: bool) -> None:
    from adpsgd_node.daemon.admin import daemon_pid, request_drain

    path, status = await find_one(wanted)
    who = f"{status.self_member.id.name} of run {status.run_id}"
    # Taken before the daemon is asked: it lives now, so the descriptor cannot be that of a later process.
    pidfd = _pidfd(daemon_pid(path)) if wait else None
    try:
        begun = time.monotonic()
        draining = await request_drain(path, timeout_s, ASK_TIMEOUT_S)
        print(f"{who} is leaving, in {draining.timeout_s:.3g} s at most (process {draining.pid})", flush=True)
        if not wait:
            return
        if pidfd is None:
            raise AdpsgdError(
                f"{who} leaves, but its process cannot be watched from here: look with adpsgd-node status"
            )
        if not await _ended(pidfd, draining.timeout_s + MARGIN_S):
            raise AdpsgdError(f"{who} should have ended by now: its log says why; SIGTERM to {draining.pid} hurries it")
    finally:
        if pidfd is not None:
            os.close(pidfd)
    if path.exists():  # one that ends by itself takes its socket away
        raise AdpsgdError(f"{who} ended without taking leave: it was killed, or failed; see its log")
    print(f"{who} has left after {time.monotonic() - begun:.1f} s")


def _pidfd(pid: int) -> int | None:
    """Open a process for waiting; None when it is not visible here, such as in another container."""
    if not pid:
        return None
    with contextlib.suppress(OSError):  # the caller says that it cannot be watched from here
        return os.pidfd_open(pid)
    return None


async def _ended(pidfd: int, timeout_s: float) -> bool:
    """Wait for the end of a process; False when it has not ended within `timeout_s`."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, over.set)
    try:
        async with asyncio.timeout(timeout_s):
            await over.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True

"""Have a node of this machine write a checkpoint now."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from adpsgd_cli.lookup import Wanted, find_one

__all__ = ["checkpoint"]

DEFAULT_TIMEOUT_S = 60.0


def checkpoint(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Which node of this machine.", show_default=False)
    ] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Which run, if several run here.")] = None,
    socket: Annotated[
        Path | None, typer.Option("--socket", metavar="PATH", help="Admin socket of a daemon, instead of a name.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1.0, help="Time to write it in.")
    ] = DEFAULT_TIMEOUT_S,
) -> None:
    """Have a node write a checkpoint now, while it trains on; prints the folder it is in.

    Exit codes: 0 it is written; 1 it could not be, or no such node runs here; 2 wrong options; 130 interrupted.
    """
    try:
        asyncio.run(_checkpoint(Wanted(name, run, socket), timeout))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _checkpoint(wanted: Wanted, timeout_s: float) -> None:
    from adpsgd_node.daemon.admin import request_checkpoint

    path, _ = await find_one(wanted)
    print(await request_checkpoint(path, timeout_s))

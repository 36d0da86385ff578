"""Show what the nodes of this machine are doing."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adpsgd_cli.lookup import ASK_TIMEOUT_S, Found, Wanted, find_nodes, listed
from adpsgd_node.errors import AdpsgdError

if TYPE_CHECKING:  # protobuf comes with it: only a running command needs that
    from adpsgd_node.wire.admin import Status

__all__ = ["status"]

WATCH_INTERVAL_S = 1.0


def status(
    node: Annotated[str | None, typer.Option("--node", metavar="NAME", help="Which node of this machine.")] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Which run, if several run here.")] = None,
    socket: Annotated[
        Path | None, typer.Option("--socket", metavar="PATH", help="Admin socket of a daemon, instead of a name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object; with --watch, one a line.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every second until the node ends.")] = False,
) -> None:
    """Show a node of this machine and the members of its run as it knows them."""
    try:
        asyncio.run(_show(Wanted(node, run, socket), as_json=as_json, watch=watch))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _show(wanted: Wanted, *, as_json: bool, watch: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from adpsgd_cli.status_view import to_table
    from adpsgd_node.daemon.status_json import to_json

    path, current = await _first(wanted)
    if not watch:
        if as_json:
            print(json.dumps(to_json(current)))
        else:
            Console().print(to_table(current))
        return
    if as_json:
        await _follow(path, current, lambda now: print(json.dumps(to_json(now)), flush=True))
        return
    with Live(to_table(current), auto_refresh=False, transient=False) as live:
        await _follow(path, current, lambda now: live.update(to_table(now), refresh=True))


async def _follow(path: Path, current: Status, show: Callable[[Status], None]) -> None:
    from adpsgd_node.daemon.admin import fetch_status

    while True:
        show(current)
        await asyncio.sleep(WATCH_INTERVAL_S)  # between two questions: the daemon does not tell unasked
        try:
            current = await fetch_status(path, ASK_TIMEOUT_S)
        except AdpsgdError as error:
            print(f"{current.self_member.id.name} no longer answers: {_why(path, error)}", file=sys.stderr)
            return


def _why(path: Path, error: AdpsgdError) -> str:
    """Say why a daemon that was there does not answer: one that ended in order has taken its socket away."""
    return str(error) if path.exists() else "it has ended"


async def _first(wanted: Wanted) -> Found:
    """Find the node that is meant; of several, take the first by run and name, and say so."""
    fitting = await find_nodes(wanted)
    if len(fitting) > 1:
        print(
            f"nodes here: {listed(fitting)}; showing the first, choose with --node, --run or --socket", file=sys.stderr
        )
    return fitting[0]

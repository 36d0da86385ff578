"""Show what the nodes of this machine are doing."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adpsgd_node.config import runtime_dir
from adpsgd_node.errors import AdpsgdError

if TYPE_CHECKING:  # protobuf comes with it: only a running command needs that
    from adpsgd_node.wire.admin import Status

__all__ = ["status"]

ASK_TIMEOUT_S = 3.0
WATCH_INTERVAL_S = 1.0
MAX_SOCKETS = 256
"""Most daemon sockets asked; further ones (by name) are left out."""


def status(
    node: Annotated[str | None, typer.Option("--node", metavar="NAME", help="Which node of this machine.")] = None,
    socket: Annotated[
        Path | None, typer.Option("--socket", metavar="PATH", help="Admin socket of a daemon, instead of a name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object; with --watch, one a line.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every second until the node ends.")] = False,
) -> None:
    """Show a node of this machine and the members of its run as it knows them."""
    try:
        asyncio.run(_show(node, socket, as_json=as_json, watch=watch))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _show(node: str | None, socket: Path | None, *, as_json: bool, watch: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from adpsgd_cli.status_view import to_json, to_table

    path, current = await _find(node, socket)
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
        await asyncio.sleep(WATCH_INTERVAL_S)
        try:
            current = await fetch_status(path, ASK_TIMEOUT_S)
        except AdpsgdError as error:
            print(f"{current.self_member.id.name} no longer answers: {_why(path, error)}", file=sys.stderr)
            return


def _why(path: Path, error: AdpsgdError) -> str:
    """Say why a daemon that was there does not answer: one that ended in order has taken its socket away."""
    return str(error) if path.exists() else "it has ended"


async def _find(node: str | None, socket: Path | None) -> tuple[Path, Status]:
    """Ask all daemons of this machine; of several, take the first by run and name, and say so."""
    folder = runtime_dir()
    paths = [socket] if socket is not None else sorted(folder.glob("*.sock"))[:MAX_SOCKETS]
    answers = [answer for answer in await asyncio.gather(*map(_ask, paths)) if answer is not None]
    matching = [answer for answer in answers if node is None or answer[1].self_member.id.name == node]
    if not matching:
        raise AdpsgdError(_nobody(node, socket, folder, [found.self_member.id.name for _, found in answers]))
    if len(matching) > 1:
        names = ", ".join(f"{found.self_member.id.name} (run {found.run_id})" for _, found in matching)
        print(f"nodes here: {names}; showing the first, choose with --node or --socket", file=sys.stderr)
    return matching[0]


async def _ask(path: Path) -> tuple[Path, Status] | None:
    """Fetch one status; None when nobody answers, as a killed daemon leaves its socket behind."""
    from adpsgd_node.daemon.admin import fetch_status

    try:
        return path, await fetch_status(path, ASK_TIMEOUT_S)
    except AdpsgdError:
        return None


def _nobody(node: str | None, socket: Path | None, folder: Path, running: list[str]) -> str:
    if socket is not None:
        return f"no node answers at {socket}"
    if running:
        return f"no node named {node} runs here; running: {', '.join(running)}"
    who = f"no node named {node}" if node is not None else "no node"
    return f"{who} runs here (no daemon answers in {folder}); start one with: adpsgd-node up"

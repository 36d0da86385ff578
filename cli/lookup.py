"""Find the daemon of this machine that a command is about."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adpsgd_node.config import runtime_dir
from adpsgd_node.errors import AdpsgdError

if TYPE_CHECKING:  # protobuf comes with it: only a running command needs that
    from adpsgd_node.wire.admin import Status

__all__ = ["ASK_TIMEOUT_S", "Found", "Wanted", "find_nodes", "find_one", "listed"]

ASK_TIMEOUT_S = 3.0
MAX_SOCKETS = 256
"""Most daemon sockets asked; further ones (by name) are left out."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which node the user means; what is None is any."""

    name: str | None = None
    run: str | None = None
    socket: Path | None = None

    def __str__(self) -> str:
        named = "node" if self.name is None else f"node named {self.name}"
        return named if self.run is None else f"{named} of run {self.run}"

    def fits(self, status: Status) -> bool:
        """Tell whether this may be the node that is meant."""
        return self.name in (None, status.self_member.id.name) and self.run in (None, status.run_id)


Found = tuple[Path, "Status"]
"""A daemon's admin socket, and what it says of itself."""


async def find_nodes(wanted: Wanted) -> list[Found]:
    """Ask all daemons of this machine; return those that fit, by run and name. Raises `AdpsgdError` if none does."""
    folder = runtime_dir()
    paths = [wanted.socket] if wanted.socket is not None else sorted(folder.glob("*.sock"))[:MAX_SOCKETS]
    answers = [answer for answer in await asyncio.gather(*map(_ask, paths)) if answer is not None]
    fitting = [answer for answer in answers if wanted.fits(answer[1])]
    if not fitting:
        raise AdpsgdError(_nobody(wanted, folder, answers))
    return fitting


async def find_one(wanted: Wanted) -> Found:
    """Find the one node that is meant. Raises `AdpsgdError` when there is none, or more than one."""
    fitting = await find_nodes(wanted)
    if len(fitting) > 1:
        raise AdpsgdError(f"nodes here: {listed(fitting)}; say which, by NAME, --run or --socket")
    return fitting[0]


def listed(found: list[Found]) -> str:
    """Write nodes for a person to choose from."""
    return ", ".join(f"{status.self_member.id.name} (run {status.run_id})" for _, status in found)


async def _ask(path: Path) -> Found | None:
    """Fetch one status; None when nobody answers, as a killed daemon leaves its socket behind."""
    from adpsgd_node.daemon.admin import fetch_status

    try:
        return path, await fetch_status(path, ASK_TIMEOUT_S)
    except AdpsgdError:
        return None


def _nobody(wanted: Wanted, folder: Path, running: list[Found]) -> str:
    if running:
        return f"no {wanted} runs here; running: {listed(running)}"
    if wanted.socket is not None:
        return f"no node answers at {wanted.socket}"
    return f"no {wanted} runs here (no daemon answers in {folder}); start one with: adpsgd-node up"

"""One life of a node: a daemon's process with everything it starts, from its beginning to its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from adpsgd_node.daemon.admin import fetch_status
from adpsgd_node.errors import AdpsgdError
from adpsgd_node.ids import NodeId
from adpsgd_node.wire.admin import Status
from chaos.launch import REPORT_FILE, VIEW_FILE
from chaos.ledger import identity_in
from chaos.mark import environment_of, processes

__all__ = ["LIFE", "Life"]

LIFE = "CHAOS_LIFE"
"""Environment variable by which the processes of one life are found, whatever became of its daemon: its folder."""

ASK_LIMIT_S = 3.0
FROM_SCRATCH = "starts with its own initial parameters"
"""What a node says when it begins a run."""


class Life:
    """A started daemon. `socket`: where it answers; `folder`: what is recorded of it."""

    def __init__(
        self, name: str, host: int, number: int, folder: Path, socket: Path, log: Path, process: subprocess.Popen[bytes]
    ) -> None:
        self.name = name
        self.host = host
        self.number = number
        self.folder = folder
        self.log = log
        self.process = process
        self.doomed = ""
        """Why its end is no surprise."""
        self.stopped = False
        self.clock_offset_s = 0.0
        """By how much its wall clock was wrong when it began."""
        self.status: Status | None = None
        """What it said last."""
        self._socket = socket

    def __str__(self) -> str:
        return f"{self.name} (life {self.number})"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    @property
    def identity(self) -> NodeId | None:
        """Name and boot; None before it has one."""
        return identity_in(self.folder)

    async def ask(self) -> Status | None:
        """Ask how it is; None when it does not answer."""
        if not self.alive or self.stopped:
            return None
        try:
            self.status = await fetch_status(self._socket, ASK_LIMIT_S)
        except AdpsgdError:
            return None
        return self.status if self.is_own(self.status) else None

    def is_own(self, status: Status) -> bool:
        """Tell whether this life said it: an earlier one had the same socket."""
        return status.self_member.id == self.identity

    def signal(self, number: signal.Signals) -> None:
        """Signal the daemon alone."""
        with contextlib.suppress(ProcessLookupError):  # it has ended since it was looked at
            os.kill(self.pid, number)

    def signal_trainer(self, number: signal.Signals) -> bool:
        """Signal the trainer alone; False when there is none now."""
        trainers = [pid for pid in self.processes() if pid != self.pid]
        for pid in trainers:
            with contextlib.suppress(ProcessLookupError):  # it has ended since it was looked at
                os.kill(pid, number)
        return bool(trainers)

    def processes(self) -> list[int]:
        """Find the living processes of this life, those that its daemon left behind too."""
        return [pid for pid in processes() if environment_of(pid).get(LIFE) == str(self.folder)]

    def report(self) -> dict[str, Any]:
        """Read what its recorder wrote last; empty before that."""
        try:
            content: dict[str, Any] = json.loads((self.folder / REPORT_FILE).read_text())
        except FileNotFoundError:
            return {}
        return content

    def drop_ledger(self) -> None:
        """Remove the sums, which take much room; the report stays."""
        for path in self.folder.glob("*.f64"):
            path.unlink()
        (self.folder / VIEW_FILE).unlink(missing_ok=True)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def errors(self) -> list[str]:
        """Give the lines in which the node says that something went wrong with it."""
        wanted = (" ERROR ", "Traceback", "adpsgd-node: ")
        return [line for line in self.text().splitlines() if any(word in line for word in wanted)]

    def from_scratch(self) -> bool:
        return FROM_SCRATCH in self.text()

"""Mark what a run of the suite leaves in the machine, so that the next one can clear up after one that was killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path

__all__ = ["OWNER", "Mark", "end_processes"]

OWNER = "CHAOS_OWNER"
"""Environment variable of every process that the suite starts; its value is the mark of the run."""

PREFIX = "adpsgd-chaos"
END_LIMIT_S = 10.0


class Mark:
    """Names one run of the suite by its process, whose start time tells it from a later one of the same number."""

    def __init__(self) -> None:
        pid = os.getpid()
        self.text = f"{PREFIX}-{pid}-{_started(pid)}"

    def __str__(self) -> str:
        return self.text

    @staticmethod
    def stale(name: str) -> bool:
        """Tell whether `name` begins with the mark of a run that is over."""
        found = re.match(rf"{PREFIX}-(\d+)-(\d+)", name)
        return found is not None and _started(int(found[1])) != int(found[2])


def end_processes(wanted: str | None = None, limit_s: float = END_LIMIT_S) -> list[int]:
    """Kill the processes of the run marked `wanted`, or (None) of every run that is over; return which they were."""
    ended: set[int] = set()
    deadline = time.monotonic() + limit_s
    while pids := _marked(wanted):
        ended.update(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it has ended since it was looked at
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{pids} do not die {limit_s:g} s after SIGKILL: are they stuck in the kernel?")
        time.sleep(0.02)  # between two looks whether they are gone
    return sorted(ended)


def environment_of(pid: int) -> dict[str, str]:
    """Read a process's environment; empty when it is gone, dead or someone else's."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (entry.decode(errors="replace").partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _marked(wanted: str | None) -> list[int]:
    found = []
    for pid in processes():
        mark = environment_of(pid).get(OWNER, "")
        if mark and (mark == wanted if wanted is not None else Mark.stale(mark)):
            found.append(pid)
    return found


def _started(pid: int) -> int:
    """Read a process's start time in ticks since boot; 0 when there is none of this number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])

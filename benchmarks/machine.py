"""Say which commit and which machine a figure belongs to, and how much else that machine had to do."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from pathlib import Path

__all__ = ["Occupation", "commit", "describe"]

ROOT = Path(__file__).parents[1]


class Occupation:
    """How many cores the rest of the machine used since this was made; a benchmark wants it near 0."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._busy_s = _busy_s()
        self._own_s = _own_s()

    def by_others(self) -> float:
        """Give it in cores; to be asked when the processes that were started have ended, as only then they count."""
        others_s = (_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        return max(0.0, others_s / (time.monotonic() - self._started))


def commit() -> str:
    """Name the commit, with `+` when the tree differs from it; `unknown` outside a repository."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe() -> str:
    """Name the processor, its usable cores and the Python."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def _busy_s() -> float:
    """Add up the time that all cores have worked since the machine started."""
    user, nice, system, _idle, _waiting, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()

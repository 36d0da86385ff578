"""Give a node a disk that can be full: a small tmpfs where root may mount one, else a limit on its files' size."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from chaos.mark import Mark

__all__ = ["Disk", "LimitedDisk", "SmallDisk", "make_disk", "unmount_stale"]

DISK_BYTES = 24 << 20
"""Room for a few checkpoints of the model that the suite trains."""
LIMIT_BYTES = 96 << 10
"""Size that no file may exceed while a `LimitedDisk` is full: below that of a model, above that of a log."""
BALLAST = "ballast"
BLOCK_BYTES = 1 << 20


class Disk(ABC):
    """Where one node writes; survives its lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def fill(self, pids: Iterable[int]) -> None:
        """Let nothing more fit. `pids`: the node's processes."""

    @abstractmethod
    def clear(self, pids: Iterable[int]) -> None:
        """Let it have room again."""

    @abstractmethod
    def close(self) -> None:
        """Give it back; what was written may be gone."""


class SmallDisk(Disk):
    """A tmpfs of its own."""

    def __init__(self, folder: Path, mark: Mark) -> None:
        super().__init__(folder)
        _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", str(mark), str(folder))

    def fill(self, pids: Iterable[int]) -> None:
        with (self.folder / BALLAST).open("ab", buffering=0) as file:
            for size in (BLOCK_BYTES, 4096):
                with contextlib.suppress(OSError):  # full: that is what was wanted
                    while file.write(bytes(size)) == size:
                        pass
        assert _full(self.folder), f"{self.folder} is not full"

    def clear(self, pids: Iterable[int]) -> None:
        (self.folder / BALLAST).unlink(missing_ok=True)

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # it is unmounted already
            _run("umount", "--lazy", str(self.folder))


class LimitedDisk(Disk):
    """A folder whose writers may be forbidden large files."""

    def fill(self, pids: Iterable[int]) -> None:
        _limit(pids, LIMIT_BYTES)

    def clear(self, pids: Iterable[int]) -> None:
        _limit(pids, resource.RLIM_INFINITY)

    def close(self) -> None:
        """Do nothing: the folder stays."""


def make_disk(folder: Path, mark: Mark) -> Disk:
    """Make a small disk where that is possible."""
    if os.geteuid() == 0:
        with contextlib.suppress(subprocess.CalledProcessError, OSError):
            return SmallDisk(folder, mark)
    return LimitedDisk(folder)


def unmount_stale() -> list[str]:
    """Unmount what runs that were killed have left."""
    stale = []
    for line in Path("/proc/mounts").read_text().splitlines():
        source, target = line.split()[:2]
        if Mark.stale(source):
            stale.append(target)
            with contextlib.suppress(subprocess.CalledProcessError):  # it is unmounted already
                _run("umount", "--lazy", target)
    return stale


def _limit(pids: Iterable[int], size: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def _full(folder: Path) -> bool:
    probe = folder / "probe"
    try:
        probe.write_bytes(bytes(4096))
    except OSError as error:
        return error.errno == errno.ENOSPC
    finally:
        probe.unlink(missing_ok=True)
    return False


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20.0)

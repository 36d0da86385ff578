"""The few operations on files that a checkpoint's safety rests on, and nothing else.

A crash may come between any two of them; what that leaves behind is for `Store` to tell apart.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from adpsgd_node.checkpoint.manifest import StoredFile

__all__ = ["FileWriter", "digest_of", "lock_folder", "remove_folder", "rename", "sync_folder"]

READ_BYTES = 4 << 20
"""Read at once while a digest is computed."""


class FileWriter:
    """Writes one file and computes its digest on the way; `close` returns once it stands on the disk."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def write(self, parts: Iterable[bytes | memoryview]) -> None:
        for part in parts:
            self._digest.update(part)
            self._size_bytes += self._file.write(part)

    def close(self) -> StoredFile:
        """Flush and sync the file."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()
        return StoredFile(self._name, self._size_bytes, self._digest.hexdigest())

    def abandon(self) -> None:
        """Close the file however far it got."""
        self._file.close()


def digest_of(path: Path) -> StoredFile:
    """Read a whole file for its size and digest."""
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
            size_bytes += len(part)
    return StoredFile(path.name, size_bytes, digest.hexdigest())


def rename(source: Path, target: Path) -> None:
    source.rename(target)


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all it holds. Raises `OSError`."""
    shutil.rmtree(folder)


def lock_folder(path: Path) -> int | None:
    """Hold a lock for as long as this process lives; None when another process has it. Raises `OSError`."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd

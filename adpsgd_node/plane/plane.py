"""The flat shared-memory image of a node's model, with one writer for every array.

    live      trainer   its parameters as last published
    inbox     daemon    running sum of all exchange deltas
    folded    trainer   the part of `inbox` that `live` already contains
    version   daemon    per chunk, bumped after each write to `inbox`
    view = live + (inbox - folded)

There is no lock: a torn read is harmless, because both sides of an exchange compute their delta from the bytes that
crossed the wire (docs/architecture.md, invariant 1).

`live` and `folded` each have two faces. A trainer whose parameters are views into `live` only ever uses the first. A
trainer that copies from a device fills the hidden face of a chunk and then turns it with one byte store, so that `live`
and `folded` of a chunk always match each other, even when the trainer is killed in the middle of a copy. Untouched
pages of the second face take no memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from adpsgd_node.errors import PlaneError
from adpsgd_node.plane.header import HEADER_BYTES, Header
from adpsgd_node.plane.layout import ELEMENT_BYTES, Layout

__all__ = ["BLOCK_ELEMENTS", "FOLDED_FACE", "LIVE_FACE", "Plane"]

BLOCK_ELEMENTS = 65536
"""Arithmetic over a chunk goes in blocks of 256 KiB, so that intermediate values stay in the core's own cache.

Measured over 25 M elements, best of 4: folding takes 40 ms at 16 KiB, 20 at 64 KiB, 16 at 256 KiB and at 1 MiB.
"""

LIVE_FACE = 1
FOLDED_FACE = 2
"""Bits of `faces[chunk]`: set when the second face of `live` (of `folded`) is the published one."""

_PAGE = 4096
_MAGIC = 0x414450534750_4C01
_FORMAT = 1

Vector = npt.NDArray[np.float32]


class Plane:
    """One mapping of the plane; `create` in the daemon, `attach` in the trainer."""

    def __init__(self, fd: int, layout: Layout, mapping: mmap.mmap) -> None:
        self.fd = fd
        self.layout = layout
        self._mapping = mapping
        self._memory: npt.NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)
        offsets = _offsets(layout)
        count, chunks = layout.elements, len(layout.chunks)
        self.header = Header(self._memory)
        self.version: npt.NDArray[np.uint64] = self._array(offsets["version"], np.uint64, chunks)
        self.folded_version: npt.NDArray[np.uint64] = self._array(offsets["folded_version"], np.uint64, chunks)
        self.faces: npt.NDArray[np.uint8] = self._array(offsets["faces"], np.uint8, chunks)
        self.redo: Vector = self._array(offsets["redo"], np.float32, 2 * BLOCK_ELEMENTS).reshape(2, BLOCK_ELEMENTS)
        """Redo log of a fold: new `live` and new `folded` of one block."""
        self.live_faces: tuple[Vector, Vector] = (
            self._array(offsets["live"], np.float32, count),
            self._array(offsets["live_back"], np.float32, count),
        )
        self.folded_faces: tuple[Vector, Vector] = (
            self._array(offsets["folded"], np.float32, count),
            self._array(offsets["folded_back"], np.float32, count),
        )
        self.live = self.live_faces[0]
        """The first face: the whole of `live` while `faces` is all zero (from attach to Go, and after finish)."""
        self.folded = self.folded_faces[0]
        self.inbox: Vector = self._array(offsets["inbox"], np.float32, count)

    @classmethod
    def create(cls, layout: Layout) -> Plane:
        """Make a zeroed plane in anonymous shared memory (never /dev/shm: containers give that 64 MB)."""
        fd = os.memfd_create("adpsgd-plane", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, _size(layout))
            # Nobody may change its size from now on: a shrunk mapping would kill the other process with SIGBUS.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            plane = cls(fd, layout, mmap.mmap(fd, _size(layout)))
        except (OSError, ValueError, OverflowError) as error:
            os.close(fd)
            raise PlaneError(
                f"cannot map a plane of {_size(layout)} bytes ({error}): give the node more memory"
            ) from error
        plane.header.reset()
        plane._identity()[:] = _identity(layout)
        return plane

    @classmethod
    def attach(cls, fd: int, layout: Layout) -> Plane:
        """Map the plane behind `fd`, taking the descriptor over. Raises `PlaneError` when it is none of `layout`."""
        size = os.fstat(fd).st_size
        if size != _size(layout):
            raise PlaneError(f"the plane has {size} bytes, this model needs {_size(layout)}: the layouts differ")
        plane = cls(fd, layout, mmap.mmap(fd, size))
        if not np.array_equal(plane._identity(), _identity(layout)):
            raise PlaneError("the plane was made for another model, chunk size or version: restart daemon and trainer")
        return plane

    def close(self) -> None:
        """Close the descriptor; the memory goes once nobody holds an array of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def memory(self) -> npt.NDArray[np.uint8]:
        """The whole mapping, e.g. to register it with a device."""
        return self._memory

    def unfolded(self, chunk: int) -> bool:
        """Tell whether `inbox` holds something of this chunk that `live` does not yet contain."""
        return bool(self.version[chunk] != self.folded_version[chunk])

    def unfolded_count(self) -> int:
        """Count the chunks whose `inbox` is ahead of `live`."""
        return int(np.count_nonzero(self.version != self.folded_version))

    def live_chunk(self, chunk: int) -> Vector:
        """Give the published face of `live` of one chunk."""
        start, stop = self.layout.chunks[chunk]
        return self.live_faces[1 if self.faces[chunk] & LIVE_FACE else 0][start:stop]

    def folded_chunk(self, chunk: int) -> Vector:
        """Give the published face of `folded` of one chunk."""
        start, stop = self.layout.chunks[chunk]
        return self.folded_faces[1 if self.faces[chunk] & FOLDED_FACE else 0][start:stop]

    def read_view(self, chunk: int, scratch: Vector) -> Vector:
        """Give the node's current parameters of one chunk: `live` itself, or `scratch` filled with the view.

        scratch: float32, at least as long as the chunk.
        """
        live = self.live_chunk(chunk)
        if not self.unfolded(chunk):
            return live
        start, stop = self.layout.chunks[chunk]
        folded = self.folded_chunk(chunk)
        inbox = self.inbox[start:stop]
        view = scratch[: stop - start]
        for at in range(0, stop - start, BLOCK_ELEMENTS):
            block = slice(at, at + BLOCK_ELEMENTS)
            np.subtract(inbox[block], folded[block], out=view[block])
            np.add(view[block], live[block], out=view[block])
        return view

    def add_to_inbox(self, chunk: int, delta: Vector) -> None:
        """Hand one delta to the trainer (daemon only)."""
        start, stop = self.layout.chunks[chunk]
        inbox = self.inbox[start:stop]
        np.add(inbox, delta, out=inbox)
        self.version[chunk] += np.uint64(1)  # after the data: a trainer that sees the version sees the delta

    def _array(self, offset: int, dtype: type[np.generic], count: int) -> npt.NDArray[Any]:
        size = np.dtype(dtype).itemsize * count
        return self._memory[offset : offset + size].view(dtype)

    def _identity(self) -> npt.NDArray[np.uint8]:
        return self._memory[: len(_identity(self.layout))]


def _identity(layout: Layout) -> npt.NDArray[np.uint8]:
    """Say in bytes which plane this is: magic, format, sizes, schema."""
    numbers = np.array([_MAGIC, _FORMAT, layout.elements, len(layout.chunks), layout.chunk_bytes], np.uint64)
    return np.frombuffer(numbers.tobytes() + layout.schema, np.uint8)


def _offsets(layout: Layout) -> dict[str, int]:
    chunks, vector = len(layout.chunks), layout.elements * ELEMENT_BYTES
    sizes = {
        "version": 8 * chunks,
        "folded_version": 8 * chunks,
        "faces": chunks,
        "redo": 2 * BLOCK_ELEMENTS * ELEMENT_BYTES,
        "live": vector,
        "inbox": vector,
        "folded": vector,
        "live_back": vector,
        "folded_back": vector,
    }
    offsets: dict[str, int] = {}
    at = HEADER_BYTES
    for name, size in sizes.items():
        offsets[name] = at
        at += -(-size // _PAGE) * _PAGE
    offsets["end"] = at
    return offsets


def _size(layout: Layout) -> int:
    return _offsets(layout)["end"]

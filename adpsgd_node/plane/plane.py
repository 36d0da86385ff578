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

`inbox` has two faces because it only grows. Once it dwarfs `live` in a chunk, the daemon starts the hidden face from
zero and writes only there: a rebase is under way, and view = live + (old inbox - folded) + new inbox. The trainer folds
the rest of the old one, then turns to the new one and to a `folded` of zeros with one byte store.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from adpsgd_node.errors import PlaneError
from adpsgd_node.plane.format import BLOCK_ELEMENTS, identity_of, offsets_of, size_of
from adpsgd_node.plane.header import Header
from adpsgd_node.plane.layout import Layout

__all__ = [
    "BLOCK_ELEMENTS",
    "FOLDED_FACE",
    "INBOX_FACE",
    "LIVE_FACE",
    "REBASE_CHECK_WRITES",
    "REBASE_NORM_RATIO",
    "Plane",
]

LIVE_FACE = 1
FOLDED_FACE = 2
INBOX_FACE = 4
"""Bits of `faces[chunk]`: set when the second face of `live` (of `folded`) is the published one, and when it is the
second face of `inbox` that `folded` refers to."""

REBASE_NORM_RATIO = 256.0
"""A chunk of `inbox` is rebased once its norm is this many times that of `live`: 16 of fp32's 24 bits are left then."""

REBASE_CHECK_WRITES = 256
"""Writes to a chunk of `inbox` between two looks at its norm. A delta is seldom larger than the parameters, so the norm
grows by no more than `REBASE_NORM_RATIO` times that of `live` meanwhile."""

MAX_VIEW_READS = 4
"""Most attempts to read a view around a trainer that completes a rebase meanwhile. A live trainer can spoil two: one by
publishing what it had fetched before the rebase, one by completing it; the daemon, busy reading, starts no other."""

Vector = npt.NDArray[np.float32]


class Plane:
    """One mapping of the plane; `create` in the daemon, `attach` in the trainer."""

    def __init__(
        self, fd: int, layout: Layout, mapping: mmap.mmap, rebase_norm_ratio: float = REBASE_NORM_RATIO
    ) -> None:
        self.fd = fd
        self.layout = layout
        self._rebase_norm_ratio = rebase_norm_ratio
        self._mapping = mapping
        self._memory: npt.NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)
        offsets = offsets_of(layout)
        count, chunks = layout.elements, len(layout.chunks)
        self.header = Header(self._memory)
        self.version: npt.NDArray[np.uint64] = self._array(offsets["version"], np.uint64, chunks)
        self.folded_version: npt.NDArray[np.uint64] = self._array(offsets["folded_version"], np.uint64, chunks)
        self.faces: npt.NDArray[np.uint8] = self._array(offsets["faces"], np.uint8, chunks)
        self.inbox_face: npt.NDArray[np.uint8] = self._array(offsets["inbox_face"], np.uint8, chunks)
        """Which face of `inbox` the daemon writes: 0 or 1; its only writer is the daemon."""
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
        self.inbox_faces: tuple[Vector, Vector] = (
            self._array(offsets["inbox"], np.float32, count),
            self._array(offsets["inbox_back"], np.float32, count),
        )
        self._published: list[tuple[Vector, Vector, Vector]] = [
            (self.live_faces[bits & 1], self.inbox_faces[bits >> 2 & 1], self.folded_faces[bits >> 1 & 1])
            for bits in range(LIVE_FACE + FOLDED_FACE + INBOX_FACE + 1)
        ]
        self.live = self.live_faces[0]
        """The first face: the whole of `live` while no chunk shows the second (from attach to Go, and after finish)."""
        self.folded = self.folded_faces[0]
        self.inbox = self.inbox_faces[0]
        """The first face: the whole of `inbox`, as `folded` is, until a chunk is rebased."""

    @classmethod
    def create(cls, layout: Layout, rebase_norm_ratio: float = REBASE_NORM_RATIO) -> Plane:
        """Make a zeroed plane in anonymous shared memory (never /dev/shm: containers give that 64 MB).

        rebase_norm_ratio: see `REBASE_NORM_RATIO`; infinity: chunks are never rebased on their own.
        """
        fd = os.memfd_create("adpsgd-plane", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size_of(layout))
            # Nobody may change its size from now on: a shrunk mapping would kill the other process with SIGBUS.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            plane = cls(fd, layout, mmap.mmap(fd, size_of(layout)), rebase_norm_ratio)
        except (OSError, ValueError, OverflowError) as error:
            os.close(fd)
            raise PlaneError(
                f"cannot map a plane of {size_of(layout)} bytes ({error}): give the node more memory"
            ) from error
        plane.header.reset()
        plane._identity()[:] = identity_of(layout)
        return plane

    @classmethod
    def attach(cls, fd: int, layout: Layout) -> Plane:
        """Map the plane behind `fd`, taking the descriptor over. Raises `PlaneError` when it is none of `layout`."""
        size = os.fstat(fd).st_size
        if size != size_of(layout):
            raise PlaneError(f"the plane has {size} bytes, this model needs {size_of(layout)}: the layouts differ")
        plane = cls(fd, layout, mmap.mmap(fd, size))
        if not np.array_equal(plane._identity(), identity_of(layout)):
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

    def rebasing(self, chunk: int) -> bool:
        """Tell whether the daemon has begun to rebase this chunk and the trainer has not followed yet."""
        return bool(self.faces[chunk] & INBOX_FACE) != bool(self.inbox_face[chunk])

    def published(self, chunk: int) -> tuple[Vector, Vector, Vector]:
        """Give the vectors that hold this chunk: `live`, the `inbox` that `folded` refers to, and `folded`."""
        return self._published[int(self.faces[chunk])]

    def live_chunk(self, chunk: int) -> Vector:
        """Give the published face of `live` of one chunk."""
        start, stop = self.layout.chunks[chunk]
        return self.published(chunk)[0][start:stop]

    def folded_chunk(self, chunk: int) -> Vector:
        """Give the published face of `folded` of one chunk."""
        start, stop = self.layout.chunks[chunk]
        return self.published(chunk)[2][start:stop]

    def read_view(self, chunk: int, scratch: Vector) -> Vector:
        """Give the node's current parameters of one chunk: `live` itself, or `scratch` filled with the view.

        scratch: float32, at least as long as the chunk.
        """
        if not self.unfolded(chunk):
            return self.live_chunk(chunk)
        start, stop = self.layout.chunks[chunk]
        view = scratch[: stop - start]
        for _ in range(MAX_VIEW_READS):
            faces = int(self.faces[chunk])
            newest = int(self.inbox_face[chunk])
            rebasing = bool(faces & INBOX_FACE) != bool(newest)
            self._fill_view(view, start, faces, self.inbox_faces[newest] if rebasing else None)
            # A torn read is off by a delta, which is harmless; with zeros for `folded` it is off by the whole inbox.
            if not rebasing or not (faces ^ int(self.faces[chunk])) & (FOLDED_FACE | INBOX_FACE):
                break
        return view

    def add_to_inbox(self, chunk: int, delta: Vector) -> None:
        """Hand one delta to the trainer (daemon only)."""
        start, stop = self.layout.chunks[chunk]
        inbox = self.inbox_faces[self.inbox_face[chunk]][start:stop]
        np.add(inbox, delta, out=inbox)
        self.version[chunk] += np.uint64(1)  # after the data: a trainer that sees the version sees the delta
        if int(self.version[chunk]) % REBASE_CHECK_WRITES == 0 and not self.rebasing(chunk):
            live = self.live_chunk(chunk)
            if float(np.dot(inbox, inbox)) > self._rebase_norm_ratio**2 * float(np.dot(live, live)):
                self.rebase(chunk)

    def rebase(self, chunk: int) -> bool:
        """Collect a chunk's deltas from zero, in the other face (daemon only); False: a rebase is still under way."""
        if self.rebasing(chunk):
            return False
        start, stop = self.layout.chunks[chunk]
        other = 1 - int(self.inbox_face[chunk])
        self.inbox_faces[other][start:stop] = 0  # no longer read by the trainer, since it has turned to the present one
        self.inbox_face[chunk] = other
        self.version[chunk] += np.uint64(1)  # so that the trainer looks, even if no delta comes
        return True

    def _fill_view(self, view: Vector, start: int, faces: int, newest: Vector | None) -> None:
        live, inbox, folded = self._published[faces]
        for at in range(0, len(view), BLOCK_ELEMENTS):
            part = view[at : at + BLOCK_ELEMENTS]
            block = slice(start + at, start + at + len(part))
            np.subtract(inbox[block], folded[block], out=part)
            np.add(part, live[block], out=part)
            if newest is not None:
                np.add(part, newest[block], out=part)

    def _array(self, offset: int, dtype: type[np.generic], count: int) -> npt.NDArray[Any]:
        size = np.dtype(dtype).itemsize * count
        return self._memory[offset : offset + size].view(dtype)

    def _identity(self) -> npt.NDArray[np.uint8]:
        return self._memory[: len(identity_of(self.layout))]

"""The trainer's fold: move what exchanges brought from `inbox` into `live`, so that no kill can undo it by half.

For a block of a changed chunk: `t = inbox; live += t - folded; folded = t`. A process killed between the two stores
would count the delta twice or lose it, so both results go to a redo log in the plane first; one word commits it. The
next trainer of this plane redoes a committed block (`recover`); copying it twice is harmless.
"""

from __future__ import annotations

import numpy as np

from adpsgd_node.plane.plane import BLOCK_ELEMENTS, FOLDED_FACE, LIVE_FACE, Plane

__all__ = ["Fold"]


class Fold:
    """Fold into `live` itself; for a trainer whose parameters are views into it."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def recover(self) -> None:
        """Bring a plane that an earlier trainer left to order: redo a committed block, show the first face."""
        committed = self._plane.header.fold_commit
        if committed:
            start = committed - 1
            self._apply(start, min(start + BLOCK_ELEMENTS, self._chunk_stop(start)))
            self._plane.header.fold_commit = 0
        for chunk in np.flatnonzero(self._plane.faces):
            self._show_first_face(int(chunk))

    def fold(self, force: bool = False) -> int:
        """Fold every chunk whose version moved (all of them with `force`); return how many.

        The version is read before the data: what arrives meanwhile moves it again and is folded next time.
        """
        plane = self._plane
        if plane.header.fold_commit:  # an exception (Ctrl-C) ended the last fold early and the caller went on
            self.recover()
        if force:
            changed = np.arange(len(plane.layout.chunks))
        else:
            changed = np.flatnonzero(plane.version != plane.folded_version)
        for chunk in changed:
            version = plane.version[chunk]
            start, stop = plane.layout.chunks[chunk]
            for at in range(start, stop, BLOCK_ELEMENTS):
                self._fold_block(at, min(at + BLOCK_ELEMENTS, stop))
            plane.folded_version[chunk] = version
        return len(changed)

    def _fold_block(self, start: int, stop: int) -> None:
        plane = self._plane
        new_live, new_folded = plane.redo[0][: stop - start], plane.redo[1][: stop - start]
        np.copyto(new_folded, plane.inbox[start:stop])  # one snapshot: the daemon may write `inbox` meanwhile
        np.subtract(new_folded, plane.folded[start:stop], out=new_live)
        np.add(new_live, plane.live[start:stop], out=new_live)
        plane.header.fold_commit = start + 1
        self._apply(start, stop)
        plane.header.fold_commit = 0

    def _apply(self, start: int, stop: int) -> None:
        plane = self._plane
        np.copyto(plane.live[start:stop], plane.redo[0][: stop - start])
        np.copyto(plane.folded[start:stop], plane.redo[1][: stop - start])

    def _chunk_stop(self, element: int) -> int:
        return next(stop for start, stop in self._plane.layout.chunks if start <= element < stop)

    def _show_first_face(self, chunk: int) -> None:
        """Copy the published face over the first; one byte store makes it the published one."""
        plane = self._plane
        start, stop = plane.layout.chunks[chunk]
        if plane.faces[chunk] & LIVE_FACE:
            plane.live[start:stop] = plane.live_chunk(chunk)
        if plane.faces[chunk] & FOLDED_FACE:
            plane.folded[start:stop] = plane.folded_chunk(chunk)
        plane.faces[chunk] = 0

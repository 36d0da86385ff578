"""The trainer's fold: move what exchanges brought from `inbox` into `live`, so that no kill can undo it by half.

For a block of a changed chunk: `t = inbox; live += t - folded; folded = t`. A process killed between the two stores
would count the delta twice or lose it, so both results go to a redo log in the plane first; one word commits it. The
next trainer of this plane redoes a committed block (`recover`); copying it twice is harmless.

A chunk whose `inbox` the daemon has rebased is folded to the end of the old face, which nobody writes any more. Then a
`folded` of zeros, in its hidden face, is right for the new one: one byte store turns both.
"""

from __future__ import annotations

import numpy as np

from adpsgd_node.plane.plane import BLOCK_ELEMENTS, FOLDED_FACE, INBOX_FACE, LIVE_FACE, Plane

__all__ = ["Fold"]


class Fold:
    """Fold into `live` itself; for a trainer whose parameters are views into it, and so into its first face."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def recover(self) -> None:
        """Bring a plane that an earlier trainer left to order: redo a committed block, show the first face."""
        plane = self._plane
        committed = plane.header.fold_commit
        if committed:
            start = committed - 1
            chunk = self._chunk_of(start)
            self._apply(chunk, start, min(start + BLOCK_ELEMENTS, plane.layout.chunks[chunk][1]))
            plane.header.fold_commit = 0
        for shown in np.flatnonzero(plane.faces & (LIVE_FACE | FOLDED_FACE)):
            self._show_first_face(int(shown))

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
            self._fold_chunk(int(chunk))
        return len(changed)

    def _fold_chunk(self, chunk: int) -> None:
        plane = self._plane
        version = plane.version[chunk]
        if plane.rebasing(chunk):
            self._fold_blocks(chunk)
            self._turn_inbox(chunk)
        self._fold_blocks(chunk)
        plane.folded_version[chunk] = version

    def _fold_blocks(self, chunk: int) -> None:
        start, stop = self._plane.layout.chunks[chunk]
        for at in range(start, stop, BLOCK_ELEMENTS):
            self._fold_block(chunk, at, min(at + BLOCK_ELEMENTS, stop))

    def _fold_block(self, chunk: int, start: int, stop: int) -> None:
        plane = self._plane
        live, inbox, folded = plane.published(chunk)
        new_live, new_folded = plane.redo[0][: stop - start], plane.redo[1][: stop - start]
        np.copyto(new_folded, inbox[start:stop])  # one snapshot: the daemon may write `inbox` meanwhile
        np.subtract(new_folded, folded[start:stop], out=new_live)
        np.add(new_live, live[start:stop], out=new_live)
        plane.header.fold_commit = start + 1
        self._apply(chunk, start, stop)
        plane.header.fold_commit = 0

    def _apply(self, chunk: int, start: int, stop: int) -> None:
        plane = self._plane
        live, _, folded = plane.published(chunk)  # a chunk's faces turn between folds, not within one
        np.copyto(live[start:stop], plane.redo[0][: stop - start])
        np.copyto(folded[start:stop], plane.redo[1][: stop - start])

    def _turn_inbox(self, chunk: int) -> None:
        """Go over to the new face of `inbox`, the old one being folded to its end: one byte store does it."""
        plane = self._plane
        start, stop = plane.layout.chunks[chunk]
        hidden = plane.folded_faces[0 if plane.faces[chunk] & FOLDED_FACE else 1]
        hidden[start:stop] = 0
        plane.faces[chunk] ^= np.uint8(FOLDED_FACE | INBOX_FACE)

    def _chunk_of(self, element: int) -> int:
        return next(n for n, (start, stop) in enumerate(self._plane.layout.chunks) if start <= element < stop)

    def _show_first_face(self, chunk: int) -> None:
        """Copy what is published of `live` and `folded` over the first faces; one byte store makes these the published.

        Which `inbox` the chunk's `folded` refers to stays as it is.
        """
        plane = self._plane
        start, stop = plane.layout.chunks[chunk]
        if plane.faces[chunk] & LIVE_FACE:
            plane.live[start:stop] = plane.live_chunk(chunk)
        if plane.faces[chunk] & FOLDED_FACE:
            plane.folded[start:stop] = plane.folded_chunk(chunk)
        plane.faces[chunk] &= np.uint8(INBOX_FACE)

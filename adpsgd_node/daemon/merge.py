"""Do the arithmetic of an exchange on the plane, one chunk at a time.

Both sides compute `d = s * (theirs - mine) / 2` from the same two decoded vectors, those that crossed the wire, and the
same scale s (1 unless the exchange is clipped). IEEE subtraction is antisymmetric, halving is exact and rounding has no
sign, so the two deltas are exact negatives (invariant 1).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adpsgd_node.codecs import Codec
from adpsgd_node.core.exchange.guard import NormJump, Norms
from adpsgd_node.core.exchange.quarantine import Offence, OffenceKind
from adpsgd_node.plane import Plane

__all__ = ["Judge", "Merge", "Merged", "NonFinite", "Side", "accept_whole", "offence_of"]


class Side(enum.Enum):
    OWN = "own"
    THEIRS = "theirs"


@dataclass(frozen=True, slots=True)
class Merged:
    """One chunk was averaged."""

    distance_squared: float
    """|theirs - mine|^2 over the chunk, before."""
    norm_squared: float
    """|mine|^2 over the chunk."""
    scale: float = 1.0
    """The part of the difference that was applied."""


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The chunk holds values that cannot be averaged; nothing of it was applied."""

    side: Side


def offence_of(refused: NonFinite | NormJump, index: int) -> Offence | None:
    """Return what the peer did wrong with chunk `index`; None when that was us, or cannot be said yet."""
    match refused:
        case NormJump(ratio, watched=True):
            return Offence(OffenceKind.NORM_JUMP, index, ratio)
        case NonFinite(Side.THEIRS):
            return Offence(OffenceKind.NON_FINITE, index)
        case _:
            return None


Judge = Callable[[Norms], NormJump | float]
"""Looks at the norms of a chunk before anything of it is applied; returns the scale to apply, or why not to."""


def accept_whole(norms: Norms) -> float:
    """Apply the whole difference, whatever it is."""
    del norms
    return 1.0


class Merge:
    """The chunk arithmetic of one node's plane, with scratch buffers for one exchange at a time each way."""

    def __init__(self, plane: Plane) -> None:
        self.frozen = False
        """Average what the trainer has published, without what other exchanges have brought since (D-PSGD)."""
        self._plane = plane
        largest = max(stop - start for start, stop in plane.layout.chunks)
        self._view = np.empty(largest, np.float32)
        self._delta = np.empty(largest, np.float32)
        self._theirs = np.empty(largest, np.float32)
        self._mine = np.empty(largest, np.float32)

    def elements(self, index: int) -> int:
        start, stop = self._plane.layout.chunks[index]
        return stop - start

    def view(self, index: int) -> NDArray[np.float32]:
        """Return the chunk's view now: float32 [elements], valid until the next call."""
        if self.frozen:
            return self._plane.live_chunk(index)
        return self._plane.read_view(index, self._view[: self.elements(index)])

    def apply(
        self, codec: Codec, index: int, theirs: memoryview, mine: memoryview, judge: Judge = accept_whole
    ) -> Merged | NonFinite | NormJump:
        """Move the chunk from `mine` towards `theirs` (both encoded), half-way unless `judge` says less.

        Raises `WireError` on a wrong length. Nothing is applied unless the result is `Merged`.
        """
        own, other, delta = self._difference(codec, index, theirs, mine)
        with np.errstate(all="ignore"):  # what is not finite shows in the sum of squares
            distance_squared = float(np.dot(delta, delta))
            if not math.isfinite(distance_squared):
                return NonFinite(Side.THEIRS if np.isfinite(own).all() else Side.OWN)
            norm_squared, other_squared = float(np.dot(own, own)), float(np.dot(other, other))
        verdict = judge(Norms(math.sqrt(norm_squared), math.sqrt(other_squared), math.sqrt(distance_squared)))
        if isinstance(verdict, NormJump):
            return verdict
        self._add(index, delta, np.float32(0.5 * verdict))
        return Merged(distance_squared, norm_squared, verdict)

    def revert(self, codec: Codec, index: int, theirs: memoryview, mine: memoryview, scale: float = 1.0) -> None:
        """Take back what `apply` did with the same arguments and `scale`."""
        _, _, delta = self._difference(codec, index, theirs, mine)
        self._add(index, delta, np.float32(-0.5 * scale))

    def _add(self, index: int, difference: NDArray[np.float32], factor: np.float32) -> None:
        np.multiply(difference, factor, out=difference)
        self._plane.add_to_inbox(index, difference)

    def _difference(
        self, codec: Codec, index: int, theirs: memoryview, mine: memoryview
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Decode both sides; return mine, theirs, and theirs - mine."""
        elements = self.elements(index)
        other = codec.decode(theirs, elements, self._theirs[:elements])
        own = codec.decode(mine, elements, self._mine[:elements])
        delta = self._delta[:elements]
        with np.errstate(all="ignore"):
            np.subtract(other, own, out=delta)
        return own, other, delta

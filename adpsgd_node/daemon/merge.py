"""Do the arithmetic of an exchange on the plane, one chunk at a time.

Both sides compute `d = (theirs - mine) / 2` from the same two decoded vectors, those that crossed the wire. IEEE
subtraction is antisymmetric and halving is exact, so the two deltas are exact negatives (invariant 1).
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adpsgd_node.codecs import Codec
from adpsgd_node.plane import Plane

__all__ = ["Merge", "Merged", "NonFinite", "Side"]


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


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The chunk holds values that cannot be averaged; nothing of it was applied."""

    side: Side


class Merge:
    """The chunk arithmetic of one node's plane, with scratch buffers for one exchange at a time each way."""

    def __init__(self, plane: Plane) -> None:
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
        return self._plane.read_view(index, self._view[: self.elements(index)])

    def apply(self, codec: Codec, index: int, theirs: memoryview, mine: memoryview) -> Merged | NonFinite:
        """Move the chunk half-way from `mine` to `theirs` (both encoded). Raises `WireError` on a wrong length."""
        own, delta, distance_squared = self._difference(codec, index, theirs, mine)
        if not math.isfinite(distance_squared):
            return NonFinite(Side.THEIRS if np.isfinite(own).all() else Side.OWN)
        norm_squared = float(np.dot(own, own))
        np.multiply(delta, np.float32(0.5), out=delta)
        self._plane.add_to_inbox(index, delta)
        return Merged(distance_squared, norm_squared)

    def revert(self, codec: Codec, index: int, theirs: memoryview, mine: memoryview) -> None:
        """Take back what `apply` did with the same arguments."""
        _, delta, _ = self._difference(codec, index, theirs, mine)
        np.multiply(delta, np.float32(-0.5), out=delta)
        self._plane.add_to_inbox(index, delta)

    def _difference(
        self, codec: Codec, index: int, theirs: memoryview, mine: memoryview
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        elements = self.elements(index)
        other = codec.decode(theirs, elements, self._theirs[:elements])
        own = codec.decode(mine, elements, self._mine[:elements])
        delta = self._delta[:elements]
        with np.errstate(all="ignore"):  # what is not finite shows in the sum of squares
            np.subtract(other, own, out=delta)
            return own, delta, float(np.dot(delta, delta))

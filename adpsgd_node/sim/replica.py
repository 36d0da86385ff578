"""Hold one node's parameters as whole numbers, and an account of all that ever moved them.

Half of a difference is rounded towards zero, so the halves of the two sides are exact negatives, as IEEE's are
(invariant 1), and sums over nodes may be compared to the last bit: a drift is a defect, never rounding.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from adpsgd_node.ids import NodeId

__all__ = ["Replica", "decoded", "encoded"]

START_RANGE = 1 << 40
STEP_RANGE = 1 << 30
"""Largest first value, and largest change by one step; so large that rounding to whole numbers does not show."""

_CHUNK_BYTES = 16


def encoded(value: int) -> bytes:
    """Write a chunk's value as it crosses the wire."""
    return value.to_bytes(_CHUNK_BYTES, "big", signed=True)


def decoded(content: bytes | memoryview) -> int:
    """Read what `encoded` wrote."""
    return int.from_bytes(content, "big", signed=True)


class Replica:
    """The chunks of one life, one whole number each."""

    def __init__(self, chunk_count: int, rng: random.Random) -> None:
        self.values = [rng.randrange(-START_RANGE, START_RANGE) for _ in range(chunk_count)]
        self.exchanged: dict[NodeId, list[int]] = {}
        """What exchanges with each peer, in either role, added to each chunk, less what was taken back."""
        self._own = list(self.values)  # where it would be without exchanges

    def step(self, rng: random.Random) -> None:
        """Let the optimizer move every chunk."""
        for index in range(len(self.values)):
            delta = rng.randrange(-STEP_RANGE, STEP_RANGE)
            self.values[index] += delta
            self._own[index] += delta

    def merge(self, peer: NodeId, index: int, theirs: int, mine: int, scale: float) -> None:
        """Move a chunk from `mine` half-way to `theirs`, or by the part `scale` of that."""
        self._move(peer, index, self.delta(theirs - mine, scale))

    def revert(self, peer: NodeId, index: int, theirs: int, mine: int, scale: float) -> None:
        """Take back what `merge` did with the same arguments."""
        self._move(peer, index, -self.delta(theirs - mine, scale))

    def delta(self, difference: int, scale: float) -> int:
        """Return half of a difference, or a part of the half; of the negative difference, the exact negative."""
        if scale != 1.0:
            difference = int(difference * scale)
        return difference // 2 if difference >= 0 else -(-difference // 2)

    def accounted(self) -> bool:
        """Tell whether steps and exchanges explain every value."""
        moved = [sum(column) for column in zip(*self.exchanged.values(), strict=True)] or [0] * len(self.values)
        return self.values == [own + delta for own, delta in zip(self._own, moved, strict=True)]

    def exchanged_with(self, peer: NodeId) -> Sequence[int]:
        """Return what exchanges with one peer added to each chunk."""
        return self.exchanged.get(peer) or [0] * len(self.values)

    def _move(self, peer: NodeId, index: int, delta: int) -> None:
        self.values[index] += delta
        self.exchanged.setdefault(peer, [0] * len(self.values))[index] += delta

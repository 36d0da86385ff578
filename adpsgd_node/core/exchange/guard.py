"""Tell a chunk that has jumped from one that has been trained: norms in, a verdict out.

A chunk is refused when its norm is more than `JUMP` times the largest of

    the norm of the last chunk that was accepted from the same peer at this place,
    the norm of our own chunk,

and is also more than the chunk would have if its values were as large as the model's are on average (root mean square
over the segment): a chunk that begins at zero may grow to that at once. Averaging pulls models together, so in a run
that works the ratio stays near one; what jumps is a wrong learning rate, a broken cast, a bad restore, a bit.

At the start of training norms may grow by any factor, and not at the same moment everywhere. So a place is watched
only once our own norm there has kept within a factor of `STEADY` over `STEADY_LOOKS` looks; after that, for good. Until
then a chunk that is too large is put off: refused, but not held against its peer. Either we grow, and it fits the next
time, or another peer shows the like, and it is we who are behind: then it is accepted.

A peer whose values grow by less than `JUMP` from one exchange to the next is not caught here: that is what a clipped
exchange is for (`core/exchange/clip.py`).
"""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from adpsgd_node.core.tensor import Segment
from adpsgd_node.ids import NodeId

__all__ = ["JUMP", "MAX_GUARDED_PEERS", "MAX_GUARD_BYTES", "ChunkShape", "Guard", "NormJump", "Norms"]

JUMP = 10.0
"""Most by which a peer's norm may exceed both references. docs/experiments.md has the ratios of healthy runs."""

STEADY = 2.0
STEADY_LOOKS = 8
"""A place is watched once its own norm has stayed within this factor over so many exchanges in a row."""

FEW_ELEMENTS = 64
"""Fewer values than these may well all be larger than the model's average: a small chunk counts as one of this size."""

ALIKE = 2.0
"""Norms that differ by no more than this factor bear each other out."""

MAX_PUT_OFF = 64
"""Chunks put off whose norm is kept, to compare the next peer's with; the oldest goes first."""

MAX_GUARDED_PEERS = 256
MAX_GUARD_BYTES = 16 << 20
"""Peers whose norms are kept, four bytes a chunk; fewer with a plane of very many chunks. The longest silent goes."""

NORM_BYTES = 4


@dataclass(frozen=True, slots=True)
class ChunkShape:
    """What the guard knows of one chunk of the plane."""

    elements: int
    segment: Segment


@dataclass(frozen=True, slots=True)
class Norms:
    """The Euclidean norms of one chunk on both sides, and of the difference."""

    mine: float
    theirs: float
    distance: float


@dataclass(frozen=True, slots=True)
class NormJump:
    """The chunk is refused: it is `ratio` times as large as it may be expected to be."""

    ratio: float
    watched: bool = True
    """Whether enough is known of the chunk's place to hold it against the peer."""


class _Segment:
    """The sum of squares of a segment, chunk by chunk as it was last seen."""

    __slots__ = ("elements", "squares")

    def __init__(self) -> None:
        self.elements = 0
        self.squares = 0.0

    @property
    def rms(self) -> float:
        return math.sqrt(max(0.0, self.squares) / self.elements) if self.elements else 0.0


class Guard:
    """What one node remembers of the norms of its own plane and of its peers' chunks."""

    def __init__(self, chunks: Sequence[ChunkShape]) -> None:
        count = len(chunks)
        self._chunks = tuple(chunks)
        self._segments = {segment: _Segment() for segment in Segment}
        self._own = array("f", bytes(NORM_BYTES * count))
        self._seen = bytearray(count)
        self._least = array("f", bytes(NORM_BYTES * count))
        self._most = array("f", bytes(NORM_BYTES * count))
        self._looks = bytearray(count)  # in a row with a steady norm, up to STEADY_LOOKS: watched from then on
        self._put_off: OrderedDict[int, tuple[NodeId, float]] = OrderedDict()
        self._accepted: OrderedDict[NodeId, array[float]] = OrderedDict()
        self._max_peers = max(1, min(MAX_GUARDED_PEERS, MAX_GUARD_BYTES // (NORM_BYTES * max(1, count))))

    def judge(self, peer: NodeId, index: int, norms: Norms) -> NormJump | None:
        """Look at one chunk of `peer`; None accepts it, and remembers its norm."""
        watched = self._look(index, norms.mine)
        accepted = self._history(peer)
        usual = max(accepted[index], norms.mine)
        limit = max(JUMP * usual, self._average(index))
        if 0 < limit < norms.theirs and (watched or not self._borne_out(peer, index, norms.theirs)):
            return NormJump(norms.theirs / (usual or limit), watched)
        accepted[index] = norms.theirs if math.isfinite(norms.theirs) else 0.0
        return None

    def forget(self, peer: NodeId) -> None:
        """Drop the history of a boot that is over."""
        self._accepted.pop(peer, None)

    def peers(self) -> int:
        return len(self._accepted)

    def _look(self, index: int, mine: float) -> bool:
        """Take in our own norm; tell whether the chunk's place is watched."""
        if not math.isfinite(mine):
            return False
        shape = self._chunks[index]
        segment = self._segments[shape.segment]
        if not self._seen[index]:
            self._seen[index] = 1
            segment.elements += shape.elements
        before, self._own[index] = self._own[index], mine
        segment.squares += self._own[index] ** 2 - before**2  # of what is stored, so that no rounding adds up
        if self._looks[index] >= STEADY_LOOKS:
            return True
        least, most = min(self._least[index], mine), max(self._most[index], mine)
        if self._looks[index] == 0 or most > STEADY * least:
            self._looks[index], least, most = 0, mine, mine
        self._looks[index] += 1
        self._least[index], self._most[index] = least, most
        return self._looks[index] >= STEADY_LOOKS

    def _borne_out(self, peer: NodeId, index: int, norm: float) -> bool:
        """Tell whether another peer's chunk was put off for a norm like this one, or else put this one off."""
        other, shown = self._put_off.pop(index, (peer, 0.0))
        if other != peer and norm <= ALIKE * shown and shown <= ALIKE * norm:
            return True
        self._put_off[index] = (peer, norm)
        while len(self._put_off) > MAX_PUT_OFF:
            self._put_off.popitem(last=False)
        return False

    def _average(self, index: int) -> float:
        """Return the norm that the chunk would have if its values were of average size."""
        shape = self._chunks[index]
        return self._segments[shape.segment].rms * math.sqrt(max(FEW_ELEMENTS, shape.elements))

    def _history(self, peer: NodeId) -> array[float]:
        norms = self._accepted.get(peer)
        if norms is None:
            norms = self._accepted[peer] = array("f", bytes(NORM_BYTES * len(self._chunks)))
            while len(self._accepted) > self._max_peers:
                self._accepted.popitem(last=False)
        self._accepted.move_to_end(peer)
        return norms

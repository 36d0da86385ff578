"""Know which chunks of a model are here, and which of the others nobody has been asked for."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ChunkPool"]


class ChunkPool:
    """All chunks of one model; at the beginning none is here, and all are in the pool."""

    def __init__(self, count: int) -> None:
        assert count > 0
        self._here = bytearray(count)
        self._unasked: list[range] = [range(count)]
        self.left = count
        """Chunks that are not here yet."""

    @property
    def unasked(self) -> int:
        """Count the chunks in the pool."""
        return sum(map(len, self._unasked))

    def here(self, index: int) -> bool:
        return bool(self._here[index])

    def arrive(self, index: int) -> bool:
        """Note that a chunk came; False: it was here already."""
        if self._here[index]:
            return False
        self._here[index] = 1
        self.left -= 1
        return True

    def missing(self, first: int, stop: int) -> list[int]:
        """List the chunks of [first, stop) that are not here."""
        return [index for index in range(first, stop) if not self._here[index]]

    def take(self, size: int) -> range:
        """Take up to `size` neighboring chunks out of the pool, the first ones in it."""
        first = self._unasked.pop(0)
        if len(first) > size:
            self._unasked.insert(0, first[size:])
        return first[:size]

    def put_back(self, indices: Iterable[int]) -> None:
        """Return chunks, in rising order, to the pool: whoever was asked for them will not bring them."""
        for index in indices:
            if self._unasked and self._unasked[-1].stop == index:
                self._unasked[-1] = range(self._unasked[-1].start, index + 1)
            else:
                self._unasked.append(range(index, index + 1))
        self._unasked.sort(key=lambda part: part.start)

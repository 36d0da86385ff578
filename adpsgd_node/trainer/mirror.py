"""Tensors of a dtype other than fp32, kept in step with their fp32 masters.

The plane and every exchange are fp32. A bf16 parameter cannot hold a small delta, so its fp32 master does, and the
parameter is the master rounded. A float64 parameter holds more than the plane can, so there it is the other way round.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch

from adpsgd_node.plane import Placement
from adpsgd_node.plane.layout import ALIGNMENT

__all__ = ["Mirror", "NarrowMirror", "WideMirror", "mirror_for"]

WINDOW_ELEMENTS = 1 << 24
"""Elements converted at once: bounds temporary memory to a few times 64 MiB."""


class Mirror(ABC):
    """All tensors of one dtype in one flat buffer, beside the fp32 master of the whole model."""

    def __init__(self, master: torch.Tensor, dtype: torch.dtype, placements: Sequence[Placement]) -> None:
        self._master = master
        self._offsets = _offsets(placements)
        self._spans, length = _pack(placements)
        self._values = torch.zeros(length, dtype=dtype, device=master.device)

    def place(self, placement: Placement) -> torch.Tensor:
        """Give the memory of one tensor."""
        offset = self._offsets[placement.spec.name]
        return self._values[offset : offset + placement.stop - placement.start].view(placement.spec.shape)

    def load(self) -> None:
        """Take the values of the master."""
        for _, master, values in self._windows():
            values.copy_(master)

    @abstractmethod
    def absorb(self) -> None:
        """Carry what the optimizer (or a forward pass) did to the tensors into the master."""

    @abstractmethod
    def fold(self, start: int, stop: int, delta: torch.Tensor) -> None:
        """Follow the master, to whose elements [start, stop) `delta` (fp32) has just been added."""

    def _windows(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Give matching pieces of master and values (and where they begin), within [start, stop) of the plane."""
        for first, last, offset in self._spans:
            low, high = max(first, start), last if stop is None else min(last, stop)
            for at in range(low, high, WINDOW_ELEMENTS):
                end = min(at + WINDOW_ELEMENTS, high)
                yield at, self._master[at:end], self._values[offset + at - first : offset + end - first]


class NarrowMirror(Mirror):
    """bfloat16 and float16: between steps, values == master rounded to the dtype."""

    def absorb(self) -> None:
        """master = values + (master - rounded master): the part that rounding hid is kept, and 0 stays exactly 0."""
        for _, master, values in self._windows():
            hidden = master - master.to(values.dtype).float()
            torch.add(values.float(), hidden, out=master)
            values.copy_(master)  # the kept part may now round up: the invariant above must hold again

    def fold(self, start: int, stop: int, delta: torch.Tensor) -> None:  # noqa: ARG002 - the master has it
        for _, master, values in self._windows(start, stop):
            values.copy_(master)


class WideMirror(Mirror):
    """float64: between steps, master == values rounded to fp32."""

    def absorb(self) -> None:
        for _, master, values in self._windows():
            master.copy_(values)

    def fold(self, start: int, stop: int, delta: torch.Tensor) -> None:
        for at, master, values in self._windows(start, stop):
            values.add_(delta[at - start : at - start + values.numel()])
            master.copy_(values)


def mirror_for(master: torch.Tensor, dtype: torch.dtype, placements: Sequence[Placement]) -> Mirror:
    """Make the mirror that suits a dtype."""
    kind = WideMirror if dtype.itemsize > master.dtype.itemsize else NarrowMirror
    return kind(master, dtype, placements)


def _offsets(placements: Sequence[Placement]) -> dict[str, int]:
    """Lay tensors out one after the other, each with its padding: where in the buffer each begins, by name."""
    offsets, offset = {}, 0
    for placement in placements:
        offsets[placement.spec.name] = offset
        offset += _padded(placement)
    return offsets


def _pack(placements: Sequence[Placement]) -> tuple[list[tuple[int, int, int]], int]:
    """Join neighbors into spans (start and stop in the plane, offset in the buffer), so that work goes in few calls."""
    spans: list[tuple[int, int, int]] = []
    length = 0
    for placement in placements:
        stop = placement.start + _padded(placement)
        if spans and spans[-1][1] == placement.start:
            spans[-1] = (spans[-1][0], stop, spans[-1][2])
        else:
            spans.append((placement.start, stop, length))
        length += _padded(placement)
    return spans, length


def _padded(placement: Placement) -> int:
    return -(-(placement.stop - placement.start) // ALIGNMENT) * ALIGNMENT

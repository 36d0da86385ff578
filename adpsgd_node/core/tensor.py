"""What one exchanged tensor is, as every node must agree on it."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

__all__ = ["Segment", "TensorSpec"]


class Segment(enum.IntEnum):
    """Which part of the plane a tensor lives in; the numbers are those of the published schema."""

    PARAMETERS = 1
    BUFFERS = 2


@dataclass(frozen=True, slots=True)
class TensorSpec:
    name: str
    shape: tuple[int, ...]
    dtype: str
    """Of the model's tensor, e.g. `float32` or `bfloat16`; the plane always holds fp32."""
    segment: Segment

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"

"""The contract between an exchange and the form its chunks take on the wire."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.errors import WireError

__all__ = ["Codec"]


class Codec(ABC):
    """Turns fp32 into bytes and back, element by element; holds no state, so one instance serves everybody.

    Mass conservation needs both sides to average the same two vectors. With a lossy codec the sender's own term is
    therefore `decode(encode(own))`, never `own` itself.
    """

    name: ClassVar[CodecName]
    lossless: ClassVar[bool]
    """Whether `decode(encode(x))` is `x`, bit by bit."""
    element_bytes: ClassVar[int]

    def encoded_bytes(self, elements: int) -> int:
        return elements * self.element_bytes

    @abstractmethod
    def encode(self, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Encode contiguous fp32 `values`; the result may be `values` itself and is good until they change."""

    def decode(
        self, data: bytes | memoryview, elements: int, out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Decode exactly `elements` values; the result is `out`, a new array, or a read-only view of `data`.

        Raises `WireError` when `data` has another length. State is unchanged.
        """
        actual, expected = memoryview(data).nbytes, self.encoded_bytes(elements)
        if actual != expected:
            raise WireError(f"{self.name.name.lower()} chunk: expected {expected} bytes, got {actual}")
        return self._decode(data, out)

    @abstractmethod
    def _decode(self, data: bytes | memoryview, out: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
        """Decode `data`, whose length is right."""

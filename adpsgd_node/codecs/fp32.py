"""Send parameters as they are: little-endian fp32, without a copy on either side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from adpsgd_node.codecs.codec import Codec
from adpsgd_node.core.exchange.frame import CodecName

__all__ = ["Fp32"]

_WIRE = np.dtype("<f4")


class Fp32(Codec):
    name = CodecName.FP32
    lossless = True
    element_bytes = 4

    def encode(self, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        return values.astype(_WIRE, copy=False)

    def _decode(self, data: bytes | memoryview, out: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
        del out  # a view is cheaper than filling it
        return np.frombuffer(data, _WIRE)

"""Send the upper half of each fp32, rounded to nearest even: half the bytes, 8 bits of significand."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from adpsgd_node.codecs.codec import Codec
from adpsgd_node.core.exchange.frame import CodecName

__all__ = ["Bf16"]

_WIRE = np.dtype("<u2")


class Bf16(Codec):
    name = CodecName.BF16
    lossless = False
    element_bytes = 2

    def encode(self, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        rounded: npt.NDArray[Any] = values.astype(ml_dtypes.bfloat16)
        # numpy cannot export a buffer of an extension dtype, so the bits travel as integers
        return rounded.view(np.uint16).astype(_WIRE, copy=False)

    def _decode(self, data: bytes | memoryview, out: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
        bits = np.frombuffer(data, _WIRE).astype(np.uint16, copy=False)
        rounded: npt.NDArray[Any] = bits.view(ml_dtypes.bfloat16)
        if out is None:
            return rounded.astype(np.float32)
        np.copyto(out, rounded, casting="same_kind")
        return out

"""Do to parameters what a codec does to them on their way."""

from __future__ import annotations

import numpy as np

from adpsgd_node.codecs import codec_named
from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.sim.training.objective import Vector

__all__ = ["round_trip"]


def round_trip(name: CodecName, values: Vector) -> Vector:
    """Return what the other side reads; `values` themselves under fp32, whose rounding is not simulated."""
    codec = codec_named(name)
    if codec.lossless:
        return values
    encoded = codec.encode(values.astype(np.float32).ravel()).tobytes()
    return codec.decode(encoded, values.size).astype(np.float64).reshape(values.shape)

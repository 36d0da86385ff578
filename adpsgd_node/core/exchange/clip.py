"""Bound how far one exchange may move a chunk (ClippedGossip: He, Karimireddy, Jaggi 2022, arXiv 2202.01545).

With the bound R both sides move by `s * (theirs - mine) / 2`, where

    s = min(1, R * min(|mine|, |theirs|) / |theirs - mine|)

Both must use the same s, or mass would not be conserved: the responder computes it, rounds it to float32 and sends it
with its chunk; the initiator checks it against its own bound and uses it.
"""

from __future__ import annotations

import struct

from adpsgd_node.core.exchange.guard import Norms

__all__ = ["LEAST_SCALE", "scale_for", "stricter", "within"]

LEAST_SCALE = 2.0**-96
"""What stands for "do not move": a side that is all zero has no norm to measure with. A 0 on the wire would say 1."""

ROUNDING = 1.01
"""The two sides sum up the same squares in an order of their own, in float32."""


def stricter(one: float, other: float) -> float:
    """Return the smaller of two bounds, where 0 is none."""
    return min(one, other) if one and other else one or other


def scale_for(bound: float, norms: Norms) -> float:
    """Return the part of the difference to apply: a float32, above 0 and at most 1."""
    room = bound * min(norms.mine, norms.theirs)
    if bound == 0 or norms.distance <= room:
        return 1.0
    scale: float = struct.unpack("<f", struct.pack("<f", room / norms.distance))[0]
    return min(1.0, max(LEAST_SCALE, scale))


def within(scale: float, bound: float, norms: Norms) -> bool:
    """Tell whether `scale` keeps `bound` as well as rounding lets one say."""
    return (
        bound == 0 or scale <= LEAST_SCALE or scale * norms.distance <= ROUNDING * bound * min(norms.mine, norms.theirs)
    )

"""A node's parameters as its plane holds them, in double precision: what a ledger is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adpsgd_node.plane import Plane

__all__ = ["exact_view"]


def exact_view(plane: Plane) -> NDArray[np.float64]:
    """Return live + (inbox - folded), and + the new inbox where a rebase is under way: float64 [elements]."""
    view = np.empty(plane.layout.elements, np.float64)
    for chunk, (start, stop) in enumerate(plane.layout.chunks):
        live, inbox, folded = (vector[start:stop].astype(np.float64) for vector in plane.published(chunk))
        view[start:stop] = live + (inbox - folded)
        if plane.rebasing(chunk):
            view[start:stop] += plane.inbox_faces[plane.inbox_face[chunk]][start:stop]
    return view

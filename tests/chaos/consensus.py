"""Measure how far the nodes' models are apart, exactly: from what each node's plane holds at that moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chaos.cluster import ChaosFailure
from chaos.launch import VIEW_FILE
from chaos.life import Life
from chaos.verdict import ask_reports

__all__ = ["consensus_distance", "distance_of"]


TRIES = 3
"""Times all nodes are asked when one of them does not answer."""


async def consensus_distance(lives: Sequence[Life]) -> float:
    """Return the root mean square distance of these nodes from their average, relative to the average's norm.

    Only of views that all of them have written upon being asked. Raises `ChaosFailure` when one does not.
    """
    for _ in range(TRIES):
        reports = await ask_reports(lives)
        if all(reports[life]["viewed"] if life in reports else False for life in lives):
            return distance_of([_view(life.folder) for life in lives])
    silent = [str(life) for life in lives if life not in reports or not reports[life]["viewed"]]
    raise ChaosFailure(f"{', '.join(silent)} did not say what its model is, asked {TRIES} times")


def distance_of(views: Sequence[NDArray[np.float64]]) -> float:
    """views: [nodes][elements]."""
    stacked = np.stack(views)
    average = stacked.mean(axis=0)
    apart = np.linalg.norm(stacked - average, axis=1)
    return float(np.sqrt(np.mean(apart**2)) / np.linalg.norm(average))


def _view(folder: Path) -> NDArray[np.float64]:
    view: NDArray[np.float64] = np.load(folder / VIEW_FILE)
    return view

"""Measure how far the nodes' models are apart, exactly: from what each node's plane holds at that moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chaos.launch import VIEW_FILE
from chaos.life import Life
from chaos.verdict import ask_reports

__all__ = ["consensus_distance", "distance_of"]


async def consensus_distance(lives: Sequence[Life]) -> float:
    """Return the root mean square distance of these nodes from their average, relative to the average's norm."""
    await ask_reports(lives)
    return distance_of([_view(life.folder) for life in lives])


def distance_of(views: Sequence[NDArray[np.float64]]) -> float:
    """views: [nodes][elements]."""
    stacked = np.stack(views)
    average = stacked.mean(axis=0)
    apart = np.linalg.norm(stacked - average, axis=1)
    return float(np.sqrt(np.mean(apart**2)) / np.linalg.norm(average))


def _view(folder: Path) -> NDArray[np.float64]:
    view: NDArray[np.float64] = np.load(folder / VIEW_FILE)
    return view

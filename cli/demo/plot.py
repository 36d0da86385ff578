"""Draw a demo's loss and consensus distance over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from adpsgd_cli.demo.history import Point

__all__ = ["draw"]

SIZE_INCHES = (9.0, 7.0)
DOTS_PER_INCH = 120


def draw(points: Mapping[str, Sequence[Point]], killed: str | None, killed_at_s: float | None, path: Path) -> None:
    """Write a PNG: loss above, consensus distance below (both logarithmic), one line a node."""
    import matplotlib as mpl  # late: it takes half a second

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (losses, distances) = pyplot.subplots(2, 1, sharex=True, figsize=SIZE_INCHES, layout="constrained")
    for name, series in points.items():
        label = f"{name} (killed)" if name == killed else name
        _curve(losses, [(point.elapsed_s, point.loss) for point in series], label)
        _curve(distances, [(point.elapsed_s, point.consensus_distance) for point in series], label)
    for axes, title in ((losses, "training loss"), (distances, "consensus distance (relative)")):
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.set_yscale("log")
            axes.legend(loc="best", fontsize="small")
        if killed_at_s is not None:
            axes.axvline(killed_at_s, color="red", linestyle=":")
    distances.set_xlabel("seconds since the start")
    figure.savefig(path, dpi=DOTS_PER_INCH)
    pyplot.close(figure)


def _curve(axes: object, pairs: Sequence[tuple[float, float]], label: str) -> None:
    drawable = [(x, y) for x, y in pairs if math.isfinite(y) and y > 0]  # a logarithmic axis has no place for 0
    if drawable:
        axes.plot(*zip(*drawable, strict=True), label=label, linewidth=1.2)  # type: ignore[attr-defined]

"""Draw what simulations of training found: a sweep's throughput and speedup, or one run's loss over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adpsgd_node.sim.training.run import TrainingRun

__all__ = ["draw_run", "draw_sweep"]

SIZE_INCHES = (11.0, 4.5)
DOTS_PER_INCH = 120

_SECOND = {
    "nodes": ("speedup", "speedup over one node"),
    "straggler": ("ideal_fraction", "part of the ideal throughput"),
}
"""What stands beside the throughput, by what is swept."""
_OTHERWISE = ("consensus_distance", "consensus distance (relative)")


def draw_sweep(path: Path, swept: Sequence[str], runs: Sequence[TrainingRun]) -> None:
    """Write throughput, and speedup or what else tells most, over the first thing swept; one line for the others.

    Where the learning rate was scaled with the nodes, a broken line says how much sooner the target was reached, too.
    """
    across, *others = swept
    field, title = _SECOND.get(across, _OTHERWISE)
    figure, (left, right) = _axes()
    for axes, name, label in ((left, "samples_per_s", "samples/s"), (right, field, title)):
        for line, of_line in _lines(others, runs).items():
            xs = [_place(across, getattr(run.report, across)) for run in of_line]
            ys = [_drawable(getattr(run.report, name)) for run in of_line]
            (drawn,) = axes.plot(xs, ys, marker="o", markersize=4, linewidth=1.2, label=line)
            if name == "speedup" and all(run.scenario.objective.scale_rate for run in of_line):
                sooner = f"{line}: time to target"
                axes.plot(xs, _sooner(of_line), marker="x", linestyle="--", color=drawn.get_color(), label=sooner)
        if name == "speedup":
            counts = sorted({run.scenario.nodes for run in runs})
            axes.plot(counts, counts, color="gray", linestyle=":", label="linear")
        _scale(axes, across, logarithmic=name != "ideal_fraction")
        axes.set_xlabel(_x_title(across))
        axes.set_ylabel(label)
        axes.legend(loc="best", fontsize="small")
    _save(figure, path)


def draw_run(path: Path, run: TrainingRun) -> None:
    """Write the loss over time and over samples of one simulation, and how far the models were apart."""
    figure, (left, right) = _axes()
    points = run.points
    for axes, xs, label in (
        (left, [point.time_s for point in points], "simulated seconds"),
        (right, [point.samples for point in points], "samples"),
    ):
        axes.plot(xs, [_drawable(point.loss) for point in points], label="loss of the mean", linewidth=1.2)
        distances = [_drawable(point.consensus_distance) for point in points]
        axes.plot(xs, distances, label="consensus distance", linewidth=1.2)
        axes.axhline(run.scenario.objective.target, color="gray", linestyle=":", label="target")
        axes.set_yscale("log")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize="small")
    left.set_title(run.report.lines()[0], fontsize="medium")
    _save(figure, path)


def _axes() -> tuple[Any, Any]:
    import matplotlib as mpl  # late: it takes half a second

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=SIZE_INCHES, layout="constrained")
    return figure, (left, right)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, dpi=DOTS_PER_INCH)
    pyplot.close(figure)


def _lines(others: Sequence[str], runs: Sequence[TrainingRun]) -> dict[str, list[TrainingRun]]:
    """Sort runs into lines: all that differ in nothing but what is swept first."""
    lines: dict[str, list[TrainingRun]] = {}
    for run in runs:
        label = ", ".join(_said(name, getattr(run.report, name)) for name in others) or run.report.algorithm
        lines.setdefault(label, []).append(run)
    return lines


def _sooner(runs: Sequence[TrainingRun]) -> list[float]:
    """Return how many times sooner than in the first run the target was reached, times the nodes of that one."""
    times = [_drawable(run.report.time_to_target_s) for run in runs]
    return [runs[0].scenario.nodes * times[0] / time for time in times]


def _said(name: str, value: Any) -> str:
    match name:
        case "nodes":
            return f"{value} nodes"
        case "straggler":
            return "no straggler" if value == 1 else f"{value:g}x straggler"
        case _:
            return str(value)


def _place(name: str, value: Any) -> Any:
    return value if name in ("nodes", "straggler") else str(value)


def _x_title(name: str) -> str:
    return "slowdown of one node" if name == "straggler" else name


def _scale(axes: Any, across: str, *, logarithmic: bool) -> None:
    axes.grid(alpha=0.3)
    if across == "nodes":
        axes.set_xscale("log", base=2)
    elif across == "straggler":
        axes.set_xscale("log")
    if logarithmic:
        axes.set_yscale("log", base=2 if across == "nodes" else 10)
    else:
        axes.set_ylim(0.0, 1.1)


def _drawable(value: float | None) -> float:
    """Turn what a logarithmic axis has no place for into a gap."""
    return value if value is not None and math.isfinite(value) and value > 0 else math.nan

"""Write a comparison down: a table, JSON, CSV and plots."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import Any

from adpsgd_cli.compare.plan import Case, ComparePlan
from adpsgd_cli.compare.row import Line, Row
from adpsgd_node.daemon.settings import AlgorithmName
from adpsgd_node.setting import choice

__all__ = ["Report"]

SIZE_INCHES = (10.0, 12.0)
DOTS_PER_INCH = 110
DASHES = ("-", "--", "-.", ":")
MAX_POINTS = 150
"""Of one curve."""
FILES = ("report.md", "report.json", "report.csv", "report.png")


class Report:
    """The rows of a comparison, written to the output folder after each."""

    def __init__(self, plan: ComparePlan) -> None:
        self._plan = plan
        self._rows: list[Row] = []
        self._histories: dict[Case, Sequence[Line]] = {}
        self._folder = plan.output.absolute()
        self._folder.mkdir(parents=True, exist_ok=True)

    def keep(self, case: Case, history: Sequence[Line]) -> None:
        """Keep how the loss went down on the first node of a run."""
        self._histories[case] = history

    def add(self, row: Row) -> None:
        """Take in one row, and write everything anew."""
        self._rows.append(row)
        markdown, as_json, as_csv, plot = (self._folder / name for name in FILES)
        markdown.write_text(self.markdown() + "\n")
        as_json.write_text(json.dumps(self.result(), indent=1) + "\n")
        with as_csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(row.as_dict() for row in self._rows)
        draw(self._rows, self._histories, plot)

    def result(self) -> dict[str, object]:
        """Return all of it as what JSON can say."""
        plan = self._plan
        return {
            "nodes": plan.nodes,
            "task": str(plan.task),
            "topology": choice(plan.topology),
            "samples": plan.samples,
            "shard": plan.shard,
            "task_options": " ".join(plan.task_options),
            "lr": {choice(algorithm): rate for algorithm, rate in plan.lr.items()},
            "emulate_step_ms": plan.emulate_step_ms,
            "link_mbps": plan.link_mbps,
            "options": " ".join(plan.common.options) if plan.common else "",
            "variants": {variant.label: " ".join(variant.options) for variant in plan.variants},
            "rows": [row.as_dict() for row in self._rows],
            "report": str(self._folder / FILES[0]),
        }

    def markdown(self) -> str:
        """Return the table, and what was run."""
        plan = self._plan
        head = (
            f"{plan.nodes} nodes on {plan.task}, {plan.samples} samples, {choice(plan.topology)} topology, data "
            f"{plan.shard}, {plan.emulate_step_ms:g} ms of emulated computing a step."
        )
        titles = "| algorithm | straggler | seed | samples/s | of ideal | final loss | test accuracy | train s | |"
        if plan.slow_links and AlgorithmName.ALLREDUCE in plan.algorithms:
            head += " Links of allreduce, which has sockets of its own, cannot be slowed: it has no such rows."
        if plan.task_options:
            head += f" Options of the task: `{' '.join(plan.task_options)}`."
        if plan.lr:
            rates = ", ".join(f"{choice(algorithm)} {rate:g}" for algorithm, rate in plan.lr.items())
            head += f" Peak learning rate of each node: {rates}."
        for variant in plan.variants:
            head += f" {variant.label}: `{' '.join(variant.options)}`."
        lines = [head, "", titles, "|---" * 9 + "|"]
        for row in self._rows:
            figures = [
                number(row.samples_per_s, 0),
                number(row.ideal_fraction, 3),
                number(row.final_loss, 4),
                number(row.test_accuracy, 4),
                number(row.train_s, 1),
            ]
            note = "" if row.complete else f"stopped after {plan.time_limit_s:g} s"
            lines.append(f"| {row.title} | {row.straggler} | {row.seed} | {' | '.join(figures)} | {note} |")
        return "\n".join(lines)

    def told(self, row: Row) -> str:
        """Tell one row in words."""
        accuracy = "" if row.test_accuracy is None else f", test accuracy {row.test_accuracy:.4f}"
        stopped = "" if row.complete else " (stopped by --time-limit)"
        fraction = number(row.ideal_fraction, 3)
        return f"    {number(row.samples_per_s, 0)} samples/s, {fraction} of ideal{accuracy}{stopped}"


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def draw(rows: Sequence[Row], histories: dict[Case, Sequence[Line]], path: Path) -> None:
    """Write a PNG: loss against samples, loss against time, and throughput by condition."""
    import matplotlib as mpl  # late: it takes half a second

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (by_samples, by_time, rates) = pyplot.subplots(3, 1, figsize=SIZE_INCHES, layout="constrained")
    for case, history in histories.items():
        if shown := thinned([line for line in history if math.isfinite(line.loss) and line.loss > 0]):
            losses = [line.loss for line in shown]
            style = _style(case, list(histories))
            by_samples.plot([line.samples_total for line in shown], losses, **style)
            by_time.plot([line.elapsed_s for line in shown], losses, **style)
    for axes, title in ((by_samples, "samples of all nodes"), (by_time, "seconds")):
        axes.set_xlabel(title)
        axes.set_ylabel("training loss of node-0, smoothed")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="x-small")
    _bars(rates, rows)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    pyplot.close(figure)


def thinned(history: Sequence[Line]) -> list[Line]:
    """Replace lines that follow each other by their mean, so that at most `MAX_POINTS` are left: batches are noisy."""
    size = math.ceil(len(history) / MAX_POINTS) or 1
    groups = [history[start : start + size] for start in range(0, len(history), size)]
    return [Line(group[-1].elapsed_s, group[-1].samples_total, fmean(line.loss for line in group)) for group in groups]


def _style(case: Case, cases: Sequence[Case]) -> dict[str, Any]:
    """One color for each algorithm or variant, one dash for each condition; all seeds look alike and are named once."""
    titles = list(dict.fromkeys(each.title for each in cases))
    conditions = list(dict.fromkeys(each.condition for each in cases))
    same = [each for each in cases if (each.title, each.condition) == (case.title, case.condition)]
    return {
        "color": f"C{titles.index(case.title) % 10}",
        "linestyle": DASHES[conditions.index(case.condition) % len(DASHES)],
        "linewidth": 1.0,
        "label": f"{case.title}, straggler {case.condition}" if case == same[0] else None,
    }


def _bars(axes: object, rows: Sequence[Row]) -> None:
    """One group of bars for each condition, one bar for each algorithm and variant: the mean over the seeds."""
    conditions = list(dict.fromkeys(row.straggler for row in rows))
    titles = list(dict.fromkeys(row.title for row in rows))
    width = 0.8 / len(titles)
    for index, title in enumerate(titles):
        places, heights = [], []
        for at, condition in enumerate(conditions):
            found = [row.samples_per_s for row in rows if (row.title, row.straggler) == (title, condition)]
            known = [rate for rate in found if rate is not None]
            if known:
                places.append(at + width * (index - (len(titles) - 1) / 2))
                heights.append(sum(known) / len(known))
        axes.bar(places, heights, width, label=title)  # type: ignore[attr-defined]
    axes.set_xticks(range(len(conditions)), conditions)  # type: ignore[attr-defined]
    axes.set_ylabel("samples per second")  # type: ignore[attr-defined]
    axes.set_xlabel("straggler")  # type: ignore[attr-defined]
    axes.legend(fontsize="small")  # type: ignore[attr-defined]

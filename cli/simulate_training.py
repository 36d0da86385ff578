"""Simulate training in virtual time: four algorithms, any number of nodes, stragglers, links and crashes."""

from __future__ import annotations

import csv
import gc
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from adpsgd_node.sim.training.run import TrainingRun

__all__ = ["SimulateGroup"]

_NAME = "training"


class SimulateGroup(TyperGroup):
    """The commands of `simulate`, and `training`, whose options are those of its scenario: built when it is asked for.

    Building it imports the simulator, which no other command is to wait for.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), _NAME]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _built() if cmd_name == _NAME else super().get_command(ctx, cmd_name)


def _built() -> Any:
    from adpsgd_cli.options import with_settings
    from adpsgd_node.sim.training.scenario import TrainingScenario

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(_NAME)(with_settings(training, TrainingScenario))
    return typer.main.get_command(app)


def training(
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="NAME=VALUES",
            help="Simulate with each value of nodes, algorithm, topology or straggler (the last node so many times as "
            "slow): nodes=8,16,32. Again for another NAME: every combination.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw throughput and speedup, or the one run (PNG, SVG, PDF)."),
    ] = None,
    table: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the rows as CSV.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, last on stdout: the figures, or `rows` of a sweep.")
    ] = False,
    **given: object,
) -> None:
    """Train a noisy quadratic in virtual time by AD-PSGD, D-PSGD, A-PSGD or all-reduce, and print what was found.

    Give the step time, the links and the model's bytes of your machines: throughput is what they would reach. Options
    that take a list take it with commas, or are given several times.
    """
    from adpsgd_node.config import compose
    from adpsgd_node.sim.training.scenario import TrainingScenario
    from adpsgd_node.sim.training.sweep import read_sweep, variations

    if plot is not None:
        _check_plot(plot)
    scenario = compose(TrainingScenario, None, given, {})
    sweeps = [read_sweep(text) for text in sweep or ()]
    scenarios = list(variations(scenario, sweeps))  # what is wrong with one is said before hours go into the others
    runs, rows = [], []
    began = time.perf_counter()
    for varied in scenarios:
        run, row = _timed(varied)
        runs.append(run)
        rows.append(row)
        if not as_json:
            print("\n".join([*run.report.lines(), f"took:                  {row['wall_s']:.1f} s", ""]), flush=True)
        elif sweeps:
            print(f"{len(rows)} of {len(scenarios)} took {row['wall_s']:.1f} s", file=sys.stderr, flush=True)
    if table is not None:
        _write_csv(table, rows)
    if plot is not None:
        _draw(plot, [each.name for each in sweeps], runs)
    if as_json:
        wall_s = round(time.perf_counter() - began, 2)
        result = {"rows": rows, "seed": scenario.seed, "wall_s": wall_s} if sweeps else rows[0]
        print(json.dumps(result, allow_nan=False))


def _timed(scenario: Any) -> tuple[TrainingRun, dict[str, Any]]:
    from adpsgd_node.sim.training.run import simulated

    gc.collect()
    gc.disable()  # millions of events and hardly a cycle: looking for them again and again would take its time
    began = time.perf_counter()
    run = simulated(scenario)
    wall_s = time.perf_counter() - began
    gc.enable()
    return run, {**asdict(run.report), "wall_s": round(wall_s, 2)}


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    from adpsgd_node.errors import ConfigError

    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise ConfigError(f"--csv {path}: {error.strerror}: name a file that can be written.") from error


def _check_plot(path: Path) -> None:
    """Refuse a plot that could not be drawn before anything is simulated."""
    import importlib.util

    from adpsgd_node.errors import ConfigError

    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--plot {path}: name a file that ends in .png, .svg or .pdf.")
    if not path.resolve().parent.is_dir():
        raise ConfigError(f"--plot {path}: there is no folder {path.parent}: make it first.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib: pip install 'adpsgd-node[examples]'.")


def _draw(path: Path, swept: Sequence[str], runs: Sequence[TrainingRun]) -> None:
    from adpsgd_cli.simulate_plot import draw_run, draw_sweep
    from adpsgd_node.errors import ConfigError

    try:
        if swept:
            draw_sweep(path, swept, runs)
        else:
            draw_run(path, runs[0])
    except OSError as error:
        raise ConfigError(f"--plot {path}: {error.strerror}: name a file that can be written.") from error

"""Simulate many members, or training nodes under faults, in virtual time, and print what was found."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adpsgd_cli.simulate_training import SimulateGroup

if TYPE_CHECKING:
    from adpsgd_node.sim import FaultRun, FaultScenario

__all__ = ["simulate"]

COLLECT_EVERY = 10
"""Seeds after which memory is tidied up: in between, looking for garbage would take a third of the time."""

simulate = typer.Typer(
    cls=SimulateGroup,
    help="Simulate a cluster in virtual time, with the machines that real nodes run.",
    no_args_is_help=True,
)


@simulate.command()
def membership(
    members: Annotated[int, typer.Option("--members", metavar="INT", help="How many members to start.")] = 100,
    loss: Annotated[
        float, typer.Option("--loss", metavar="FLOAT", help="Probability that a message is lost, each way.")
    ] = 0.05,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="FLOAT", help="Simulated minutes to measure once all have joined.")
    ] = 10.0,
    preset: Annotated[str, typer.Option("--preset", metavar="local|lan|wan", help="Times of membership.")] = "lan",
    seed: Annotated[int, typer.Option("--seed", metavar="INT", help="Of everything random; repeats a run.")] = 0,
    crash: Annotated[int, typer.Option("--crash", metavar="INT", help="Members to crash half way through.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, last on stdout.")] = False,
) -> None:
    """Let members join through three seeds over a network that loses messages, crash some, and see who notices when.

    Exit code 0 whatever was found: the figures are the result.
    """
    from adpsgd_node.sim import MembershipScenario

    scenario = MembershipScenario(
        members=members, loss=loss, seconds=60.0 * minutes, preset=preset, seed=seed, crash=crash
    )
    gc.disable()  # millions of values and hardly a cycle: looking for them again and again is most of the time
    began = time.perf_counter()
    report = scenario.run()
    wall_s = time.perf_counter() - began
    if as_json:
        print(json.dumps({**asdict(report), "wall_s": round(wall_s, 2)}))
    else:
        print("\n".join([*report.lines(), f"took:                  {wall_s:.1f} s"]))


@simulate.command()
def faults(
    seeds: Annotated[int, typer.Option("--seeds", metavar="INT", help="How many seeds to simulate.")] = 100,
    nodes: Annotated[int, typer.Option("--nodes", metavar="INT", help="Nodes that start, at least 4.")] = 16,
    first_seed: Annotated[int, typer.Option("--first-seed", metavar="INT", help="The first seed.")] = 0,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="FLOAT", help="Simulated seconds with faults, for each seed.")
    ] = 30.0,
    loss: Annotated[
        float, typer.Option("--loss", metavar="FLOAT", help="Probability that a message is lost, each way.")
    ] = 0.05,
    seed: Annotated[int | None, typer.Option("--seed", metavar="INT", help="Simulate this one seed only.")] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="PATH",
            help="A file for --seed's transcript, else a folder for those that fail.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, last on stdout.")] = False,
) -> None:
    """Put training nodes through random faults, mend them, and see whether every invariant holds.

    Nodes crash, restart, move, leave, stand still, are cut off and slowed down, and streams break. Afterwards all views
    must be right, no exchange stuck, and the parameters in sum exactly what steps made them. Exit code 1: a seed fails.
    """
    from adpsgd_node.sim import Campaign, FaultScenario

    scenario = FaultScenario(nodes=nodes, seconds=seconds, loss=loss, seed=first_seed if seed is None else seed)
    campaign = Campaign(scenario=scenario, first_seed=scenario.seed, seeds=seeds if seed is None else 1)
    failures = trace if seed is None else None
    if failures is not None:
        _make_folder(failures)
    elif trace is not None:
        _write_transcript(scenario, trace)
    gc.disable()
    began = time.perf_counter()
    report = campaign.report(_shown(scenario, failures))
    wall_s = time.perf_counter() - began
    if as_json:
        print(json.dumps({**asdict(report), "wall_s": round(wall_s, 2)}))
    else:
        print("\n".join([*report.lines(), f"took:                  {wall_s:.1f} s"]))
    if report.failed:
        raise typer.Exit(1)


def _make_folder(path: Path) -> None:
    from adpsgd_node.errors import ConfigError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--trace {path}: {error.strerror}: without --seed it names a folder.") from error


def _write_transcript(scenario: FaultScenario, path: Path) -> None:
    from adpsgd_node.errors import ConfigError
    from adpsgd_node.sim import transcribed

    _, transcript = transcribed(scenario)
    try:
        path.write_text(transcript, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--trace {path}: {error.strerror}: name a file that can be written.") from error


def _shown(scenario: FaultScenario, failures: Path | None) -> Callable[[FaultRun], None]:
    """Return what prints each seed that fails, at once, and tidies up now and then.

    failures: a folder that gets the transcripts of these seeds.
    """

    def ran(run: FaultRun) -> None:
        if run.seed % COLLECT_EVERY == 0:
            gc.collect()
        if not run.wrong:
            return
        print("\n  ".join([f"seed {run.seed} fails:", *run.wrong[:10]]))
        name = f"seed-{run.seed}.txt"
        if failures is None:
            options = f"--nodes {scenario.nodes} --seconds {scenario.seconds:g} --loss {scenario.loss:g}"
            print(f"  replay: adpsgd-node simulate faults {options} --seed {run.seed} --trace {name}")
        else:
            _write_transcript(replace(scenario, seed=run.seed), failures / name)
            print(f"  transcript: {failures / name}")

    return ran

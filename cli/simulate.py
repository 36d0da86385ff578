"""Simulate the control plane with many members in virtual time, and print what was measured."""

from __future__ import annotations

import gc
import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

__all__ = ["simulate"]

simulate = typer.Typer(
    help="Simulate the control plane in virtual time, with the machines that real nodes run.", no_args_is_help=True
)


@simulate.callback()
def _simulate() -> None:
    """Keep `membership` a word of its own, though it is the only simulation so far."""


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

"""Offer `adpsgd-node demo`: several nodes on this machine train one model together."""

from __future__ import annotations

import asyncio
import enum
import importlib.util
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from adpsgd_cli.demo.plan import DemoPlan, Task
from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.daemon.settings import TopologyName
from adpsgd_node.errors import ConfigError
from adpsgd_node.setting import convert

__all__ = ["check_installed", "chosen", "demo"]

Choice = TypeVar("Choice", bound=enum.Enum)


def demo(
    nodes: Annotated[int, typer.Option("--nodes", metavar="INT", help="How many nodes to start, 1 to 64.")] = 4,
    kill: Annotated[bool, typer.Option("--kill", help="Kill one node (SIGKILL) half-way; the others go on.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object, last on stdout; progress to stderr.")
    ] = False,
    task: Annotated[str, typer.Option("--task", metavar="digits|char_lm", help="What to train.")] = "digits",
    epochs: Annotated[
        float | None,
        typer.Option("--epochs", metavar="FLOAT", help="Passes over the data, by all nodes together."),
    ] = None,
    topology: Annotated[
        str,
        typer.Option("--topology", metavar="complete|ring|exponential|hypercube", help="Graph over the nodes."),
    ] = "complete",
    codec: Annotated[str, typer.Option("--codec", metavar="fp32|bf16", help="How parameters travel.")] = "fp32",
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Where logs, models and the plot go.")
    ] = Path("demo-output"),
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Give up when it takes longer.")
    ] = 600.0,
    seed: Annotated[int, typer.Option("--seed", metavar="INT", help="Of weights and random choices.")] = 0,
) -> None:
    """Start several nodes on this machine, watch them train one model together, and compare what they end with.

    Exit code 0 only when every node that was not killed finished and their models agree.
    """
    plan = DemoPlan(
        nodes=nodes,
        kill=kill,
        task=chosen("task", Task, task.replace("_", "-")),
        epochs=epochs,
        topology=chosen("topology", TopologyName, topology),
        codec=chosen("codec", CodecName, codec),
        output=output,
        timeout_s=timeout,
        seed=seed,
    )
    check_installed(plan.task)

    from adpsgd_cli.demo.conduct import conduct  # late: rich and protobuf come with it

    code = asyncio.run(conduct(plan, as_json=as_json))
    if code:
        raise typer.Exit(code)


def chosen(name: str, kind: type[Choice], text: str) -> Choice:
    chosen = convert(name, kind, text)
    assert isinstance(chosen, kind)
    return chosen


def check_installed(task: Task) -> None:
    needed = ["matplotlib", *(["sklearn"] if task is Task.DIGITS else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"the demo needs {', '.join(missing)}: pip install 'adpsgd-node[examples]'")

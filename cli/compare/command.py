"""Offer `adpsgd-node compare`: the algorithms beside each other, on this machine, under the same conditions."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from adpsgd_cli.compare.plan import ComparePlan
from adpsgd_cli.compare.variant import parse_variant
from adpsgd_cli.demo.command import check_installed, chosen
from adpsgd_cli.demo.plan import Task
from adpsgd_node.daemon.settings import AlgorithmName, TopologyName
from adpsgd_node.setting import SettingError

__all__ = ["compare"]


def compare(
    nodes: Annotated[int, typer.Option("--nodes", metavar="INT", help="How many nodes to start, 2 to 64.")] = 8,
    algorithms: Annotated[
        str, typer.Option("--algorithms", metavar="LIST", help="Which to compare.")
    ] = "ad-psgd,d-psgd,a-psgd,allreduce",
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            metavar="LABEL: OPTIONS",
            help="One more row of ad-psgd, with these options of up; may be given again.",
        ),
    ] = None,
    options: Annotated[
        str,
        typer.Option("--options", metavar="OPTIONS", help="Further options of up for all rows: '--chunk-bytes 65536'."),
    ] = "",
    straggler: Annotated[
        str,
        typer.Option("--straggler", metavar="LIST", help="How many times slower the last node computes: none,2,10."),
    ] = "none,10",
    slow_link: Annotated[
        str,
        typer.Option("--slow-link", metavar="LIST", help="How many times slower its link is: 2,10; not for allreduce."),
    ] = "",
    seeds: Annotated[str, typer.Option("--seeds", metavar="LIST", help="Each is a run more: 0,1,2.")] = "0",
    task: Annotated[str, typer.Option("--task", metavar="digits|char_lm", help="What to train.")] = "digits",
    samples: Annotated[int, typer.Option("--samples", metavar="INT", help="Of all nodes together, a run.")] = 60_000,
    lr: Annotated[
        str,
        typer.Option(
            "--lr",
            metavar="RATE|ALGORITHM=RATE,...",
            help="Peak learning rate of each node, in all rows or by algorithm. [default: the task's own]",
        ),
    ] = "",
    task_options: Annotated[
        str,
        typer.Option("--task-options", metavar="OPTIONS", help="Further options of the task: '--width 64 --depth 2'."),
    ] = "",
    topology: Annotated[
        str,
        typer.Option("--topology", metavar="complete|ring|exponential|hypercube", help="Graph over the nodes."),
    ] = "complete",
    shard: Annotated[
        str, typer.Option("--shard", metavar="global|iid|dirichlet:ALPHA", help="How the nodes share the data.")
    ] = "global",
    emulate_step_ms: Annotated[
        float, typer.Option("--emulate-step-ms", metavar="MS", help="Least time that computing a step takes.")
    ] = 50.0,
    link_mbps: Annotated[
        float, typer.Option("--link-mbps", metavar="MBPS", help="Rate of each node's link; 0: as fast as it is.")
    ] = 0.0,
    time_limit: Annotated[
        float, typer.Option("--time-limit", metavar="SECONDS", help="Stop a run that takes longer; its row says so.")
    ] = 900.0,
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Where logs, models and the report go.")
    ] = Path("compare-output"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object, last on stdout; progress to stderr.")
    ] = False,
) -> None:
    """Train the same task under each algorithm and condition, with real nodes on this machine, and compare.

    Writes report.md, report.json, report.csv and report.png to the output folder, anew after each run.
    """
    compared = tuple(chosen("algorithms", AlgorithmName, name) for name in _entries(algorithms))
    plan = ComparePlan(
        nodes=nodes,
        algorithms=compared,
        variants=tuple(parse_variant(text) for text in variant or ()),
        common=parse_variant(f"all rows: {options}") if options else None,
        stragglers=_factors("straggler", straggler),
        slow_links=_factors("slow_link", slow_link),
        seeds=tuple(_whole("seeds", text) for text in _entries(seeds)),
        task=chosen("task", Task, task.replace("_", "-")),
        samples=samples,
        lr=_rates(lr, compared),
        task_options=_words(task_options),
        topology=chosen("topology", TopologyName, topology),
        shard=shard,
        emulate_step_ms=emulate_step_ms,
        link_mbps=link_mbps,
        time_limit_s=time_limit,
        output=output,
    )
    check_installed(plan.task)

    from adpsgd_cli.compare.run import compare as carry_out  # late: rich and protobuf come with it

    code = asyncio.run(carry_out(plan, as_json=as_json))
    if code:
        raise typer.Exit(code)


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _factors(key: str, text: str) -> tuple[float, ...]:
    return tuple(1.0 if entry == "none" else _factor(key, entry) for entry in _entries(text))


def _factor(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingError(key, text, "factors such as none,2,10") from None


def _rates(text: str, algorithms: Sequence[AlgorithmName]) -> dict[AlgorithmName, float]:
    """Read one rate for all algorithms, or `ALGORITHM=RATE` for some."""
    try:
        if "=" not in text:
            return dict.fromkeys(algorithms, float(text)) if text.strip() else {}
        pairs = [entry.partition("=")[::2] for entry in _entries(text)]
        return {chosen("lr", AlgorithmName, name.strip()): float(rate) for name, rate in pairs}
    except ValueError:
        raise SettingError("lr", text, "a rate such as 2e-3, or ad-psgd=4e-3,allreduce=2e-3") from None


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:  # a quotation that does not end
        raise SettingError("task_options", text, f"options as on a command line ({error})") from None


def _whole(key: str, text: str) -> int:
    if not text.isdecimal():
        raise SettingError(key, text, "whole numbers from 0, such as 0,1,2")
    return int(text)

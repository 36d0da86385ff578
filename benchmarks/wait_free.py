"""Measure whether a trainer ever waits for a peer: stop one daemon for a while, then kill one whole node.

    python benchmarks/wait_free.py --nodes 4 --stop-s 20

Every node computes for an emulated 50 ms a step. Two runs:

- stop: SIGSTOP one of the daemons (a frozen machine: connections stay open, nothing answers), SIGCONT later; the steps
  of the other trainers before and during the stop are compared. The stopped daemon's own trainer is shown beside them.
- kill: SIGKILL daemon and trainer of one node; the longest time between two steps of any survivor around that moment
  counts, in normal steps (their median before). The same figure from before the kill shows what the machine adds.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import machine
from cluster import BenchmarkNode, Cluster

START_LIMIT_S = 120.0
FIRST_STEPS = 40
"""Steps of every node before anything is measured."""
BEFORE_KILL_S = 2.0
"""A gap that a kill caused may have begun this long before it at most."""

Figures = dict[str, float]


def main() -> None:
    options = parse()
    occupation = machine.Occupation()
    result: dict[str, Any] = {
        "benchmark": "wait_free",
        "nodes": options.nodes,
        "step_ms": options.step_ms,
        "model_bytes": 4 * (options.width**2 + options.width),
        "commit": machine.commit(),
        "machine": machine.describe(),
    }
    with tempfile.TemporaryDirectory(prefix="adpsgd-bench-") as name:
        for kind, measure in (("stop", measure_stop), ("kill", measure_kill)):
            folder = Path(name, kind)
            folder.mkdir()
            with Cluster(folder, options.nodes, options.step_ms, options.width) as cluster:
                cluster.wait_for_training(FIRST_STEPS, START_LIMIT_S)
                result[kind] = measure(cluster, options)
    result["cores_used_by_others"] = occupation.by_others()
    print(table(result))
    if options.json:
        print(json.dumps(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Stop and kill nodes, and look at the others' steps.")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--step-ms", type=float, default=50.0, help="emulated computing time of one step")
    parser.add_argument("--stop-s", type=float, default=20.0, help="how long one daemon is stopped")
    parser.add_argument("--watch-s", type=float, default=20.0, help="how long to watch before, and after a kill")
    parser.add_argument("--width", type=int, default=512, help="the model has about width^2 parameters")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser.parse_args()


def measure_stop(cluster: Cluster, options: argparse.Namespace) -> dict[str, Any]:
    *others, stopped = cluster.nodes
    progress(f"watching for {options.watch_s:g} s, then stopping the daemon of {stopped.name}")
    exchanges = [exchanges_of(others)]
    begin = time.monotonic()
    time.sleep(options.watch_s)  # the span that is measured
    exchanges.append(exchanges_of(others))
    stopped.daemon.send_signal(signal.SIGSTOP)
    at = time.monotonic()
    time.sleep(options.stop_s)  # the span that is measured
    end = time.monotonic()
    stopped.daemon.send_signal(signal.SIGCONT)
    exchanges.append(exchanges_of(others))
    before, during = step_figures(others, begin, at), step_figures(others, at, end)
    return {
        "stopped_s": end - at,
        "before": before,
        "during": during,
        "p50_ratio": during["p50_ms"] / before["p50_ms"],
        "p99_ratio": during["p99_ms"] / before["p99_ms"],
        "own_trainer_during": step_figures([stopped], at, end),
        "exchanges_per_s_before": (exchanges[1] - exchanges[0]) / (at - begin),
        "exchanges_per_s_during": (exchanges[2] - exchanges[1]) / (end - at),
    }


def measure_kill(cluster: Cluster, options: argparse.Namespace) -> dict[str, Any]:
    *survivors, victim = cluster.nodes
    progress(f"watching for {options.watch_s:g} s, then killing {victim.name}")
    begin = time.monotonic()
    time.sleep(options.watch_s)  # the span that is measured
    at = time.monotonic()
    victim.kill()
    time.sleep(options.watch_s)  # the span that is measured
    end = time.monotonic()
    before = step_figures(survivors, begin, at - BEFORE_KILL_S)
    after = step_figures(survivors, at - BEFORE_KILL_S, end)
    return {
        "normal_step_ms": before["p50_ms"],
        "longest_gap_ms": after["max_ms"],
        "longest_gap_steps": after["max_ms"] / before["p50_ms"],
        "longest_gap_before_steps": before["max_ms"] / before["p50_ms"],
        "watched_after_s": end - at,
        "before": before,
        "after": after,
    }


def step_figures(nodes: list[BenchmarkNode], begin: float, end: float) -> Figures:
    """Sum up the times between two steps of the same node of which the later lies within [begin, end].

    A trainer that hangs until the end has no later step: the time since its last one counts for the longest.
    """
    gaps: list[float] = []
    open_gaps: list[float] = []
    for node in nodes:
        steps = [at for at in node.steps() if at <= end]
        gaps += [1000 * (later - earlier) for earlier, later in pairwise(steps) if later >= begin]
        open_gaps.append(1000 * (end - steps[-1]))
    return {
        "steps": len(gaps),
        "p50_ms": statistics.median(gaps or open_gaps),
        "p99_ms": statistics.quantiles(gaps or open_gaps, n=100, method="inclusive")[98],
        "max_ms": max(gaps + open_gaps),
    }


def exchanges_of(nodes: list[BenchmarkNode]) -> int:
    return sum(node.exchanges() for node in nodes)


def table(result: dict[str, Any]) -> str:
    stop, kill = result["stop"], result["kill"]
    lines = [
        f"{result['nodes']} nodes, {result['step_ms']:g} ms of emulated computing a step, a model of "
        f"{result['model_bytes'] / 1e6:.1f} MB; commit {result['commit']}; {result['machine']}; "
        f"others used {result['cores_used_by_others']:.1f} cores",
        "",
        "| steps of | number | p50 ms | p99 ms | longest ms |",
        "|---|---|---|---|---|",
        _line("the other trainers, before the stop", stop["before"]),
        _line(f"the other trainers, {stop['stopped_s']:.0f} s of one daemon stopped", stop["during"]),
        _line("the stopped daemon's own trainer, meanwhile", stop["own_trainer_during"]),
        _line("the survivors, before the kill", kill["before"]),
        _line("the survivors, from the kill on", kill["after"]),
        "",
        f"stop: p50 x {stop['p50_ratio']:.2f}, p99 x {stop['p99_ratio']:.2f} of before; exchanges of the others "
        f"{stop['exchanges_per_s_before']:.0f} -> {stop['exchanges_per_s_during']:.0f} a second",
        f"kill: longest gap {kill['longest_gap_steps']:.2f} normal steps "
        f"(before the kill: {kill['longest_gap_before_steps']:.2f})",
    ]
    return "\n".join(lines)


def _line(name: str, figures: Figures) -> str:
    numbers = f"{figures['p50_ms']:.1f} | {figures['p99_ms']:.1f} | {figures['max_ms']:.1f}"
    return f"| {name} | {figures['steps']} | {numbers} |"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

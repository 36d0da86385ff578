"""Hold the simulator's throughput against that of real nodes, under each algorithm and condition.

    python benchmarks/prediction.py

A short run of two nodes under each algorithm gives the step time, and what a push and pull or an all-reduce takes
besides the link. `adpsgd-node compare` then measures eight nodes on a ring over emulated links, and `adpsgd-node
simulate training` is told what was measured with two. The table has one row for each of compare's; the last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine

BATCH = 32
GOAL = 0.10
"""A prediction is good when it is off by no more than this part."""
CALIBRATION_SAMPLES = 3000
STEPS = 300
"""Simulated steps per node."""


def main() -> None:
    options = parse()
    occupation = machine.Occupation()
    with tempfile.TemporaryDirectory(prefix="prediction-") as folder:
        step_ms, overhead_ms, model_bytes = calibrate(options, Path(folder))
        rows = measure(options, Path(folder))
    table = [judged(row, options, step_ms, overhead_ms, model_bytes) for row in rows]
    print("| algorithm | straggler | measured | predicted, samples/s | off by |", file=sys.stderr)
    print("|---|---|---|---|---|", file=sys.stderr)
    for row in table:
        figures = f"{row['measured']:.0f} | {row['predicted']:.0f} | {100 * row['error']:+.1f} %"
        print(f"| {row['algorithm']} | {row['straggler']} | {figures} |", file=sys.stderr)
    good = sum(abs(row["error"]) <= GOAL for row in table)
    print(f"within {100 * GOAL:.0f} %: {good} of {len(table)}", file=sys.stderr)
    result = {
        "benchmark": "prediction",
        "commit": machine.commit(),
        "machine": machine.describe(),
        "busy_elsewhere_cores": round(occupation.by_others(), 2),
        "nodes": options.nodes,
        "emulated_step_ms": options.step_ms,
        "chunk_bytes": options.chunk_bytes,
        "link_mbps": options.link_mbps,
        "step_ms": step_ms,
        "overhead_ms": overhead_ms,
        "model_bytes": model_bytes,
        "rows": table,
        "within_goal": good,
    }
    print(json.dumps(result))


def calibrate(options: argparse.Namespace, folder: Path) -> tuple[float, dict[str, float], int]:
    """Measure with two nodes: milliseconds of a step, and by algorithm of what else it waits for; the model's bytes."""
    output = folder / "calibration"
    rows = compare(options, "--nodes=2", "--straggler=none", f"--samples={CALIBRATION_SAMPLES}", f"--output={output}")
    steps = {row["algorithm"]: row["samples_per_s"] / BATCH for row in rows}
    step_s = 2.0 / steps["ad-psgd"]
    push_s = 1.0 / (steps["a-psgd"] - 1.0 / step_s) - step_s  # of the one node; the other serves, and is its own worker
    sum_s = 2.0 / steps["allreduce"] - step_s
    # An exchange hides behind computing here; besides the link it takes about what a push and pull takes.
    waits_s = {"ad-psgd": push_s, "d-psgd": push_s, "a-psgd": push_s, "allreduce": sum_s}
    model = next(output.glob("ad-psgd*/**/model.safetensors"))
    return 1e3 * step_s, {name: max(0.0, 1e3 * wait_s) for name, wait_s in waits_s.items()}, model.stat().st_size


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Run all algorithms with real nodes."""
    return compare(
        options,
        f"--nodes={options.nodes}",
        "--topology=ring",
        f"--link-mbps={options.link_mbps:g}",
        "--straggler=none,10",
        "--slow-link=10",
        f"--samples={options.samples}",
        f"--output={folder / 'measured'}",
    )


def judged(
    row: dict[str, Any], options: argparse.Namespace, step_ms: float, overhead_ms: dict[str, float], model_bytes: int
) -> dict[str, Any]:
    """Simulate what one row of a comparison measured."""
    link = row["straggler"].startswith("link")
    factor = row["straggler"].removeprefix("link ").removesuffix("x")
    last = f"n{options.nodes - 1}={factor}"
    slow = [] if factor == "none" else [f"--slow-link={last}" if link else f"--slow={last}"]
    # The sockets of torch.distributed are not slowed down: they have the machine's own loopback.
    network = ["--network=rack"]
    if row["algorithm"] != "allreduce":
        network += [f"--bandwidth-mbps={options.link_mbps:g}", "--latency-ms=0"]
    simulated = called(
        ["simulate", "training", "--json"],
        f"--nodes={options.nodes}",
        f"--algorithm={row['algorithm']}",
        "--topology=ring",
        f"--steps={STEPS}",
        f"--batch={BATCH}",
        f"--step-ms={step_ms}",
        f"--exchange-overhead-ms={overhead_ms[row['algorithm']]}",
        f"--model-bytes={model_bytes}",
        *network,
        *slow,
    )
    measured, predicted = row["samples_per_s"], simulated["samples_per_s"]
    return {
        "algorithm": row["algorithm"],
        "straggler": row["straggler"],
        "measured": measured,
        "predicted": predicted,
        "error": predicted / measured - 1.0,
    }


def compare(options: argparse.Namespace, *more: str) -> list[dict[str, Any]]:
    chunks = f"--chunk-bytes {options.chunk_bytes}"
    result = called(["compare", "--json", "--options", chunks], f"--emulate-step-ms={options.step_ms:g}", *more)
    rows: list[dict[str, Any]] = result["rows"]
    return rows


def called(command: Sequence[str], *options: str) -> dict[str, Any]:
    """Call adpsgd-node; returns the JSON object that is its last line."""
    line = [sys.executable, "-m", "adpsgd_cli", *command, *options]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Hold the simulator's throughput against that of real nodes.")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--samples", type=int, default=12_000, help="of all nodes together, in each run")
    parser.add_argument("--link-mbps", type=float, default=100.0, help="rate of every node's link, each way")
    parser.add_argument(
        "--step-ms", type=float, default=200.0, help="long enough that nodes do not wait for each other's processors"
    )
    parser.add_argument(
        "--chunk-bytes", type=int, default=16384, help="both ways of a link overlap only if the model has several"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

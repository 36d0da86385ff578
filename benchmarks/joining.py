"""Measure what joining nodes cost their donors: the donors' steps before and while four joiners fetch at once.

    python benchmarks/joining.py --donors 2 --joiners 4

Donors are whole nodes that train and exchange. The joiners are the fetching part of as many nodes, in one process. They
have half of the processors and the donors the other half: on machines of their own they would not take the donors'
processors at all. Each fetches the whole model again
and again, from all donors. Times of steps are compared between spans with joiners and spans without, in turn, so that
what else the machine does meets both. The bytes each donor gave are its own count, over the spans with joiners.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import machine
from cluster import BenchmarkNode, Cluster

from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.allocator import keep_freed_memory
from adpsgd_node.daemon.fetch import Fetcher
from adpsgd_node.daemon.settings import JoiningConfig
from adpsgd_node.errors import StreamBrokenError
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.net.grpc_transport import GrpcTransport
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.telemetry.metrics import Metrics

START_LIMIT_S = 60.0
FIRST_STEPS = 20
SETTLE_S = 1.0
"""Left out at the beginning of each span."""
CHUNK_BYTES = 1 << 20
MIB = 1 << 20

Span = tuple[float, float]


def main() -> None:
    options = parse()
    if options.addresses:
        asyncio.run(join_for_a_while(options))
        return
    occupation = machine.Occupation()
    result: dict[str, Any] = {
        "benchmark": "joining",
        "donors": options.donors,
        "joiners": options.joiners,
        "step_ms": options.step_ms,
        "compute": options.compute,
        "model_bytes": 4 * (options.width**2 + options.width),
        "budget_bytes_per_s": options.donor_bytes_per_s,
        "commit": machine.commit(),
        "machine": machine.describe(),
    }
    donors_half, joiners_half = halves()
    os.sched_setaffinity(0, donors_half)
    with tempfile.TemporaryDirectory(prefix="adpsgd-bench-") as name:
        node_options = [f"--donor-bytes-per-s={options.donor_bytes_per_s}", f"--chunk-bytes={CHUNK_BYTES}"]
        script_options = ["--compute"] if options.compute else []
        with Cluster(
            Path(name),
            options.donors,
            options.step_ms,
            options.width,
            options=node_options,
            script_options=script_options,
        ) as cluster:
            cluster.wait_for_training(FIRST_STEPS, START_LIMIT_S)
            result |= measure(cluster, options, joiners_half)
    result["cores_used_by_others"] = occupation.by_others()
    print(table(result), file=sys.stderr)
    print(json.dumps(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Let nodes fetch the model, and look at their donors' steps.")
    parser.add_argument("--donors", type=int, default=2)
    parser.add_argument("--joiners", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="spans with joiners, and as many without")
    parser.add_argument("--span-s", type=float, default=10.0, help="length of each")
    parser.add_argument("--step-ms", type=float, default=50.0, help="computing time of one step")
    parser.add_argument("--compute", action="store_true", help="compute for that time instead of sleeping")
    parser.add_argument("--width", type=int, default=2048, help="the model has about width^2 parameters")
    parser.add_argument("--donor-bytes-per-s", type=int, default=JoiningConfig().donor_bytes_per_s)
    parser.add_argument("--addresses", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def halves() -> tuple[set[int], set[int]]:
    """Split the processors between the donors and the joiners; both have the only one where there is just one."""
    processors = sorted(os.sched_getaffinity(0))
    half = len(processors) // 2
    return set(processors[half:]), set(processors[:half] or processors)


def measure(cluster: Cluster, options: argparse.Namespace, joiners_half: set[int]) -> dict[str, Any]:
    spans: dict[str, list[Span]] = {"alone": [], "joining": []}
    given = dict.fromkeys((node.name for node in cluster.nodes), 0.0)
    cores: dict[str, list[float]] = {"alone": [], "joining": []}
    fetched: list[dict[str, float]] = []
    joining_s = 0.0
    for number in range(options.rounds):
        progress(f"round {number + 1} of {options.rounds}")
        with DaemonCores(cluster.nodes, cores["alone"]):
            spans["alone"].append(watch(options.span_s))
        joiners = start_joiners(cluster.nodes, options, joiners_half)
        assert joiners.stdout is not None
        joiners.stdout.readline()  # it has started, which also takes the processor
        before, began = [node.metric("adpsgd_model_bytes_given_total") for node in cluster.nodes], time.monotonic()
        with DaemonCores(cluster.nodes, cores["joining"]):
            spans["joining"].append(watch(options.span_s))
        for node, earlier in zip(cluster.nodes, before, strict=True):
            given[node.name] += node.metric("adpsgd_model_bytes_given_total") - earlier
        joining_s += time.monotonic() - began
        rest, _ = joiners.communicate(timeout=START_LIMIT_S)
        fetched.append(json.loads(rest.splitlines()[-1]))
    alone, joining = (figures(cluster.nodes, spans[kind]) for kind in ("alone", "joining"))
    rates = {name: count / joining_s for name, count in given.items()}
    return {
        "alone": alone,
        "while_joining": joining,
        "p50_ratio": joining["p50_ms"] / alone["p50_ms"],
        "p99_ratio": joining["p99_ms"] / alone["p99_ms"],
        "mean_ratio": joining["mean_ms"] / alone["mean_ms"],
        "daemon_cores_alone": statistics.fmean(cores["alone"]),
        "daemon_cores_while_joining": statistics.fmean(cores["joining"]),
        "given_bytes_per_s": rates,
        "most_given_of_budget": max(rates.values()) / options.donor_bytes_per_s,
        "fetches": sum(entry["fetches"] for entry in fetched),
        "failed_fetches": sum(entry["failed"] for entry in fetched),
        "busy_answers": sum(node.metric("adpsgd_fetches_total{", '"busy"') for node in cluster.nodes),
    }


class DaemonCores:
    """Note how much of a processor the donors' daemons used, on average over them; a context manager."""

    def __init__(self, nodes: Sequence[BenchmarkNode], cores: list[float]) -> None:
        self._nodes = nodes
        self._cores = cores

    def __enter__(self) -> None:
        self._began, self._used_s = time.monotonic(), self._cpu_s()

    def __exit__(self, *_: object) -> None:
        elapsed_s = time.monotonic() - self._began
        self._cores.append((self._cpu_s() - self._used_s) / elapsed_s / len(self._nodes))

    def _cpu_s(self) -> float:
        return sum(node.metric("adpsgd_process_cpu_seconds_total") for node in self._nodes)


def watch(span_s: float) -> Span:
    """Let the nodes work; returns the span to look at."""
    time.sleep(SETTLE_S)  # what has just been started is not to count
    began = time.monotonic()
    time.sleep(span_s)  # the span that is measured
    return began, time.monotonic()


def figures(nodes: Sequence[BenchmarkNode], spans: Sequence[Span]) -> dict[str, float]:
    """Sum up the times between two steps of the same node of which both lie within one span."""
    gaps: list[float] = []
    for node in nodes:
        steps = node.steps()
        for began, ended in spans:
            within = [at for at in steps if began <= at <= ended]
            gaps += [1000 * (later - earlier) for earlier, later in pairwise(within)]
    return {
        "steps": len(gaps),
        "mean_ms": statistics.fmean(gaps),
        "p50_ms": statistics.median(gaps),
        "p99_ms": statistics.quantiles(gaps, n=100, method="inclusive")[98],
    }


def start_joiners(
    nodes: Sequence[BenchmarkNode], options: argparse.Namespace, processors: set[int]
) -> subprocess.Popen[str]:
    """Start the process of the joiners; it ends by itself after the span."""
    addresses = ",".join(f"{node.name}={node.address}" for node in nodes)
    arguments = [f"--addresses={addresses}", f"--joiners={options.joiners}", f"--width={options.width}"]
    arguments.append(f"--span-s={options.span_s + 2 * SETTLE_S}")
    command = [sys.executable, __file__, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, processors)  # before it has a thread but the first
    return process


async def join_for_a_while(options: argparse.Namespace) -> None:
    """Be the joiners: fetch until the time is up, then say how often that went well."""
    keep_freed_memory()
    specs = [
        TensorSpec("weight", (options.width, options.width), "float32", Segment.PARAMETERS),
        TensorSpec("bias", (options.width,), "float32", Segment.PARAMETERS),
    ]
    layout = Layout.build(specs, CHUNK_BYTES)
    donors = [
        Member(NodeId(name, 1), Address(address), 0, MemberState.ALIVE, Phase.TRAINING)
        for name, _, address in (entry.partition("=") for entry in options.addresses.split(","))
    ]
    print("started", flush=True)
    until = asyncio.get_running_loop().time() + options.span_s
    counts = {"fetches": 0, "failed": 0}
    tasks = [
        asyncio.create_task(_fetch_again(number, donors, layout, until, counts), name=f"joiner {number}")
        for number in range(options.joiners)
    ]
    await asyncio.gather(*tasks)
    print(json.dumps(counts))


async def _fetch_again(number: int, donors: list[Member], layout: Layout, until: float, counts: dict[str, int]) -> None:
    rng = random.Random(number)
    transport = GrpcTransport(Address("127.0.0.1:0"))
    fetcher = Fetcher(RunId("bench"), transport, JoiningConfig(donors=len(donors)), Metrics(version="bench"), rng)
    plane = Plane.create(layout)
    try:
        async with asyncio.timeout_at(until):
            while True:
                try:
                    await fetcher.fetch(rng.sample(donors, len(donors)), plane)
                    counts["fetches"] += 1
                except StreamBrokenError as error:
                    counts["failed"] += 1
                    progress(f"joiner {number}: {error}")
    except TimeoutError:
        pass  # the time is up
    finally:
        await transport.close(grace_s=1.0)
        plane.close()


def table(result: dict[str, Any]) -> str:
    kind = "computing" if result["compute"] else "emulated computing"
    rates = ", ".join(f"{name} {rate / MIB:.1f}" for name, rate in result["given_bytes_per_s"].items())
    lines = [
        f"{result['donors']} donors, {result['joiners']} joiners, {result['step_ms']:g} ms of {kind} a step, "
        f"a model of {result['model_bytes'] / 1e6:.1f} MB; commit {result['commit']}; {result['machine']}; "
        f"others used {result['cores_used_by_others']:.1f} cores",
        "",
        "| steps of the donors | number | mean ms | p50 ms | p99 ms |",
        "|---|---|---|---|---|",
        _line("without joiners", result["alone"]),
        _line("while they fetch", result["while_joining"]),
        "",
        f"cores used by a donor's daemon: {result['daemon_cores_alone']:.3f}, while joiners fetch "
        f"{result['daemon_cores_while_joining']:.3f}",
        f"mean x {result['mean_ratio']:.3f}, p50 x {result['p50_ratio']:.3f}, p99 x {result['p99_ratio']:.3f}",
        f"MiB/s given: {rates}; the budget is {result['budget_bytes_per_s'] / MIB:.1f}; "
        f"{result['fetches']} whole fetches, {result['failed_fetches']} failed, "
        f"{result['busy_answers']:.0f} told to wait",
    ]
    return "\n".join(lines)


def _line(name: str, values: dict[str, float]) -> str:
    return f"| {name} | {values['steps']} | {values['mean_ms']:.1f} | {values['p50_ms']:.1f} | {values['p99_ms']:.1f} |"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

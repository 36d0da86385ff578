"""Conduct a demo from start to verdict."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

from adpsgd_cli.demo.cluster import Cluster, NodeProcess
from adpsgd_cli.demo.history import History, poll
from adpsgd_cli.demo.interruption import Interruption
from adpsgd_cli.demo.plan import DemoPlan
from adpsgd_cli.demo.plot import draw
from adpsgd_cli.demo.verdict import summarize, told
from adpsgd_cli.demo.view import View
from adpsgd_node.errors import AdpsgdError

__all__ = ["conduct"]

POLL_INTERVAL_S = 0.5
KILL_AT_FRACTION = 0.5
SHOWN_LOG_LINES = 20
PLOT_FILE = "plot.png"


@dataclass(slots=True)
class _Progress:
    """What happened so far."""

    history: History
    started_s: float
    killed_at_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s


async def conduct(plan: DemoPlan, *, as_json: bool) -> int:
    """Start the nodes, watch them to the end, compare their models, and tell the result; return the exit code.

    Raises `AdpsgdError` when a node fails, time runs out, or the models differ. SIGINT and SIGTERM end the nodes too.
    """
    demo = asyncio.ensure_future(_conduct(plan, as_json=as_json))
    with Interruption(demo) as interruption:
        try:
            await demo
        except asyncio.CancelledError:
            if interruption.signal_number is None:
                raise
            return 128 + interruption.signal_number
    return 0


async def _conduct(plan: DemoPlan, *, as_json: bool) -> None:
    progress = _Progress(History(), time.monotonic())
    cluster = Cluster(plan)
    with View(on_stderr=as_json) as view:
        view.say(f"starting {plan.nodes} nodes on {plan.task}; their logs are in {plan.output}")
        try:
            await cluster.start()
            await _watch(plan, cluster, progress, view)
        finally:
            await cluster.stop()
    wall_s = progress.elapsed_s
    _check_models(cluster, plan.output)
    result = summarize(plan, cluster, progress.history, wall_s)
    plot = plan.output.absolute() / PLOT_FILE
    draw(progress.history.points, plan.victim, progress.killed_at_s, plot)
    result["plot"] = str(plot)
    print(json.dumps(result) if as_json else told(result), flush=True)
    distance = result["consensus_distance"]
    if not (isinstance(distance, float) and distance <= plan.tolerance):  # a NaN is not
        raise AdpsgdError(f"the models differ by {distance}, more than the tolerance of {plan.tolerance:g}")


async def _watch(plan: DemoPlan, cluster: Cluster, progress: _Progress, view: View) -> None:
    """Poll until every node has ended; kill one half-way if so planned."""
    while True:
        running = [node for node in cluster.nodes.values() if node.returncode is None]
        await poll(cluster, progress.history, progress.elapsed_s)
        view.update(cluster, progress.history, progress.elapsed_s)
        _check_exits(cluster, plan.output)
        if plan.victim is not None and progress.killed_at_s is None:
            _kill_half_way(plan.victim, cluster, progress, view)
        if not running:
            return
        if progress.elapsed_s > plan.timeout_s:
            names = ", ".join(node.name for node in running)
            raise _explained(
                f"{names} still ran after {plan.timeout_s:g} s: give --timeout more", running[0], plan.output
            )
        waits = [asyncio.ensure_future(node.process.wait()) for node in running]
        await asyncio.wait(waits, timeout=POLL_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


def _kill_half_way(victim: str, cluster: Cluster, progress: _Progress, view: View) -> None:
    status = progress.history.latest.get(victim)
    if cluster.nodes[victim].returncode is not None:
        raise AdpsgdError(f"{victim} finished before it could be killed half-way: give --epochs more")
    if status is None or progress.history.fraction < KILL_AT_FRACTION:
        return
    cluster.kill(victim, status.trainer_pid)
    progress.killed_at_s = progress.elapsed_s
    view.say(f"[{progress.elapsed_s:5.1f} s] killed {victim} at {progress.history.fraction:.0%}; the others go on")


def _check_exits(cluster: Cluster, output: Path) -> None:
    for node in cluster.nodes.values():
        if node.returncode not in (None, 0) and not node.killed:
            raise _explained(f"{node.name} failed with exit code {node.returncode}", node, output)


def _check_models(cluster: Cluster, output: Path) -> None:
    for node in cluster.survivors:
        if not node.model.is_file():
            raise _explained(f"{node.name} ended without writing {node.model}", node, output)


def _explained(problem: str, node: NodeProcess, output: Path) -> AdpsgdError:
    """Add the end of the node's log, and where all logs are."""
    tail = "\n".join(f"    {text}" for text in node.last_lines(SHOWN_LOG_LINES)) or "    (nothing)"
    return AdpsgdError(f"{problem}\nlast lines of {node.log}:\n{tail}\nthe logs of all nodes are in {output}")

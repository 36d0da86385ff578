"""Carry out a comparison: one cluster of processes after another, each under one algorithm and condition."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

from adpsgd_cli.compare.plan import Case, ComparePlan
from adpsgd_cli.compare.report import Report
from adpsgd_cli.compare.row import Row, judge, read_history
from adpsgd_cli.demo.cluster import Cluster
from adpsgd_cli.demo.history import History, poll
from adpsgd_cli.demo.interruption import Interruption
from adpsgd_cli.demo.view import View
from adpsgd_node.errors import AdpsgdError
from adpsgd_node.tasks.history import HISTORY_FILE

__all__ = ["compare"]

POLL_INTERVAL_S = 1.0
SHOWN_LOG_LINES = 20


async def compare(plan: ComparePlan, *, as_json: bool) -> int:
    """Run every case, write the report, and print it; return the exit code.

    Raises `AdpsgdError` when a node fails. SIGINT and SIGTERM end the nodes too; what was measured until then is kept.
    """
    work = asyncio.ensure_future(_compare(plan, as_json=as_json))
    with Interruption(work) as interruption:
        try:
            await work
        except asyncio.CancelledError:
            if interruption.signal_number is None:
                raise
            return 128 + interruption.signal_number
    return 0


async def _compare(plan: ComparePlan, *, as_json: bool) -> None:
    report, cases = Report(plan), list(plan.cases())
    with View(on_stderr=as_json) as view:
        for number, case in enumerate(cases, 1):
            view.say(f"run {number} of {len(cases)}: {case}")
            row = await _run(plan, case, report, view)
            report.add(row)  # after each run: an interrupted comparison leaves what it has
            view.say(report.told(row))
    print(json.dumps(report.result()) if as_json else report.markdown(), flush=True)


async def _run(plan: ComparePlan, case: Case, report: Report, view: View) -> Row:
    cluster, history, began_s = Cluster(plan.demo(case)), History(), time.monotonic()
    try:
        await cluster.start()
        complete = await _watch(plan, cluster, history, began_s, view)
    finally:
        await cluster.stop()
    nodes = list(cluster.nodes.values())
    report.keep(case, read_history(nodes[0].folder / HISTORY_FILE))
    return judge(plan, case, nodes, complete=complete)


async def _watch(plan: ComparePlan, cluster: Cluster, history: History, began_s: float, view: View) -> bool:
    """Wait until every node has ended; False when time ran out first."""
    while True:
        elapsed_s = time.monotonic() - began_s
        await poll(cluster, history, elapsed_s)
        view.update(cluster, history, elapsed_s)
        _check_exits(cluster)
        running = [node for node in cluster.nodes.values() if node.returncode is None]
        if not running:
            return True
        if elapsed_s > plan.time_limit_s:
            return False
        await _one_ends([node.process for node in running])


async def _one_ends(processes: Sequence[asyncio.subprocess.Process]) -> None:
    """Wait for an end, for as long as until the next poll."""
    waits = [asyncio.ensure_future(process.wait()) for process in processes]
    await asyncio.wait(waits, timeout=POLL_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _check_exits(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        if node.returncode not in (None, 0):
            tail = "\n".join(f"    {text}" for text in node.last_lines(SHOWN_LOG_LINES)) or "    (nothing)"
            raise AdpsgdError(f"{node.name} failed with exit code {node.returncode}\nlast lines of {node.log}:\n{tail}")

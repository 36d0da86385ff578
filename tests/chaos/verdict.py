"""Judge a run of the suite: from what the lives recorded, and the models that the nodes wrote."""

from __future__ import annotations

import asyncio
import itertools
import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adpsgd_cli.demo.verdict import read_result, widest_distance
from adpsgd_node.errors import AdpsgdError
from adpsgd_node.ids import NodeId
from chaos.cluster import Cluster
from chaos.ledger import pair_drift, read_ledgers, total_drift
from chaos.life import Life

__all__ = ["MAX_DRIFT", "Findings", "ask_reports", "hung_tasks", "judge", "settle", "stuck_tasks"]

MAX_DRIFT = 1e-5
"""Largest relative error of the mass ledger."""
MAX_CONSENSUS_DISTANCE = 1e-2
"""Largest relative distance between two models that were written: the nodes aim at a tenth of it."""
SETTLE_LIMIT_S = 30.0
"""From the end of the faults until every broken exchange between living nodes is settled; retries are 5 s apart."""
REPORT_LIMIT_S = 10.0
LOOK_S = 0.1


@dataclass(slots=True)
class Findings:
    """What was found while the run went on."""

    views: int = 0
    """Different views of the membership after the last fault."""
    converge_s: float | None = None
    """From the last fault's end to one view; None: not in time."""
    hung: set[str] = field(default_factory=set)
    unsettled_live: list[str] = field(default_factory=list)
    consensus: float = 0.0
    """Mean relative distance of the models after the last fault, while training."""


async def settle(cluster: Cluster) -> list[str]:
    """Wait until no exchange between living nodes is unsettled; returns those that still are when time runs out."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while True:
        left = await unsettled(cluster)
        if not left or time.monotonic() > deadline:
            return left
        await asyncio.sleep(1.0)  # between two looks


async def unsettled(cluster: Cluster) -> list[str]:
    """Say who has a broken exchange with a life that still lives, not yet settled."""
    lives = [life for life in cluster.current if life.alive]
    reports = await ask_reports(lives)
    silent = [f"{life}, which does not say" for life in lives if life not in reports]
    return silent + _unsettled_among(list(reports.values()), {life.identity for life in lives})


def _unsettled_among(reports: Sequence[dict[str, Any]], living: set[NodeId | None]) -> list[str]:
    return [
        f"{report['name']}@{report['boot']} with {name}@{boot}"
        for report in reports
        for name, boot in report.get("unsettled", ())
        if NodeId(name, boot) in living
    ]


async def hung_tasks(lives: Sequence[Life]) -> set[str]:
    """Ask living nodes for tasks that should have ended long ago."""
    return {f"{life}: {task}" for life, report in (await ask_reports(lives)).items() for task in report["hung"]}


async def stuck_tasks(lives: Sequence[Life], since_s: float) -> set[str]:
    """Ask nodes that nothing hurts any more for the tasks they began before `since_s` (monotonic) and have not ended.

    Settlings too: no peer is dead any more. A node that does not say hangs itself.
    """
    reports = await ask_reports(lives)
    stuck = {f"{life} itself: it writes no report" for life in lives if life not in reports}
    for life, report in reports.items():
        old = {task: since_s - began_s for task, began_s in report["begun_s"].items() if began_s < since_s}
        stuck |= {f"{life}: {task}, begun {age_s:.0f} s before the last fault's end" for task, age_s in old.items()}
    return stuck


async def ask_reports(lives: Sequence[Life]) -> dict[Life, dict[str, Any]]:
    """Have these lives write fresh reports, and read them; one that does not in time is left out."""
    asked = [(life, life.report().get("number", 0)) for life in lives if life.identity is not None and not life.stopped]
    for life, _ in asked:
        life.signal(signal.SIGUSR2)
    deadline = time.monotonic() + REPORT_LIMIT_S
    fresh: dict[Life, dict[str, Any]] = {}
    for life, before in asked:
        while time.monotonic() < deadline and life.alive:
            report = life.report()
            if report.get("number", 0) > before:
                fresh[life] = report
                break
            await asyncio.sleep(LOOK_S)
    return fresh


def judge(cluster: Cluster, findings: Findings, counts: Counter[str]) -> dict[str, Any]:
    """Put the result together once every node has ended. Reasons against it are noted in the cluster."""
    survivors = [life for life in cluster.current if life.exit_code == 0]
    reports = [life.report() for life in survivors]
    drift = _mass_drift(cluster, survivors, reports)
    unsettled_live, unsettled_dead = _unsettled_at_end(survivors, reports)
    findings.unsettled_live += unsettled_live
    findings.hung |= _late_tasks(cluster)
    accuracy, distance = _model(cluster, survivors)
    result = {
        "mass_drift_relative": drift,
        "ledger_pairs": _pairs(survivors),
        "mass_drift_with_leavers": _drift_with_leavers(cluster),
        "views": findings.views,
        "hung_tasks": len(findings.hung),
        "unsettled_with_live_peers": len(findings.unsettled_live),
        "faults": sum(counts.values()),
        "test_accuracy": accuracy,
        "seed": cluster.plan.seed,
        "nodes": cluster.plan.nodes,
        "minutes": cluster.plan.minutes,
        "hosts": cluster.hosts.kind,
        "fault_counts": dict(sorted(counts.items())),
        "lives": len(cluster.all_lives),
        "lives_with_clock_behind": cluster.starts_behind,
        "survivors": len(survivors),
        "converge_s": None if findings.converge_s is None else round(findings.converge_s, 2),
        "unsettled_with_dead_peers": unsettled_dead,
        "consensus_distance_training": _known(findings.consensus),
        "consensus_distance": _known(distance),
        "exchanges": _sum(reports, "outcomes"),
        "settled": _sum(reports, "settled"),
    }
    _note(cluster, findings, result, distance)
    return result


def _note(cluster: Cluster, findings: Findings, result: dict[str, Any], distance: float) -> None:
    complaints: list[tuple[bool, Callable[[], str]]] = [
        (
            not result["mass_drift_relative"] <= MAX_DRIFT,
            lambda: f"the mass ledger is off by {result['mass_drift_relative']:.2e}",
        ),
        (not result["ledger_pairs"], lambda: "no two lives that exchanged have both survived: the ledger is empty"),
        (findings.views != 1, lambda: f"{findings.views} views of the membership after the last fault"),
        (findings.converge_s is None, lambda: "no common view in time after the last fault"),
        (bool(findings.hung), lambda: f"hung tasks: {'; '.join(sorted(findings.hung))}"),
        (bool(findings.unsettled_live), lambda: f"unsettled: {'; '.join(sorted(findings.unsettled_live))}"),
        (
            not distance <= MAX_CONSENSUS_DISTANCE,
            lambda: f"the models that the nodes wrote differ by {distance:.2e}",
        ),
        (
            not result["test_accuracy"] >= cluster.plan.target_accuracy,
            lambda: f"test accuracy {result['test_accuracy']} is below {cluster.plan.target_accuracy}",
        ),
    ]
    for holds, text in complaints:
        if holds:
            cluster.failed(text())
    for life in cluster.all_lives:
        if life.from_scratch() and life.number > 1:
            cluster.failed(f"{life} began the run anew with its own initial parameters")
        for line in life.text().splitlines():
            if "Traceback" in line or "a background task failed" in line:
                cluster.failed(f"{life} has a defect: {line}")


def _mass_drift(cluster: Cluster, survivors: Sequence[Life], reports: Sequence[dict[str, Any]]) -> float:
    """Return the largest error of the ledger over the lives whose memory survived, relative to one model's norm."""
    ledgers = read_ledgers([life.folder for life in survivors])
    norm = min((report["norm"] for report in reports if report.get("norm")), default=0.0)
    widest, where = pair_drift(ledgers, norm)
    if widest > MAX_DRIFT:
        cluster.failed(f"{where} did not take exact opposites from each other: {widest:.2e}")
    for report in reports:
        for defect in report.get("defects", ()):
            cluster.failed(f"{report['name']}: {defect}")
        if report.get("planes", 1) != 1:
            cluster.failed(f"{report['name']} gave its plane up: what it had taken from others went with it")
    own = [report[key] / norm for report in reports for key in ("unattributed", "inbox_error") if norm]
    return max([widest, total_drift(ledgers, norm * max(1, len(ledgers))), *own])


def _pairs(survivors: Sequence[Life]) -> int:
    """Count the pairs of surviving lives that have exchanged: what the ledger compares."""
    ledgers = read_ledgers([life.folder for life in survivors])
    return sum(one in ledgers[other].taken for one, other in itertools.combinations(ledgers, 2))


def _drift_with_leavers(cluster: Cluster) -> float:
    """Return the same of all pairs whose lives both ended in order, whenever that was.

    Who leaves while a peer is frozen or cut off has to leave something unsettled: such pairs are left out.
    """
    leavers = [life for life in cluster.all_lives if life.exit_code == 0 and life.report().get("final")]
    reports = [life.report() for life in leavers]
    open_pairs = {
        frozenset((NodeId(report["name"], report["boot"]), NodeId(name, boot)))
        for report in reports
        for name, boot in report["unsettled"]
    }
    norm = min((report["norm"] for report in reports if report["norm"]), default=0.0)
    drift, where = pair_drift(read_ledgers([life.folder for life in leavers]), norm, open_pairs)
    if drift > MAX_DRIFT:
        cluster.failed(f"{where} parted in order and did not take exact opposites from each other: {drift:.2e}")
    return drift


def _unsettled_at_end(survivors: Sequence[Life], reports: Sequence[dict[str, Any]]) -> tuple[list[str], int]:
    living = {life.identity for life in survivors}
    live = _unsettled_among(reports, living)
    entries = sum(len(report.get("unsettled", ())) for report in reports)
    gone = _sum(reports, "settled")
    return live, entries - len(live) + gone.get("abandoned", 0) + gone.get("evicted", 0)


def _late_tasks(cluster: Cluster) -> set[str]:
    """Return what hung until it was cancelled at the end of the lives that ended in order, whenever that was."""
    reports = {life: life.report() for life in cluster.all_lives if life.exit_code == 0}
    return {f"{life}: {task}" for life, report in reports.items() if report.get("final") for task in report["hung"]}


def _model(cluster: Cluster, survivors: Sequence[Life]) -> tuple[float, float]:
    """Return the averaged model's least test accuracy, and the largest distance between two nodes' copies of it."""
    folders = [cluster.disks[life.host].folder / "out" for life in survivors]
    try:
        accuracies = [read_result(folder / "result.json").get("test_accuracy", 0.0) for folder in folders]
        return min(accuracies, default=0.0), widest_distance([folder / "model.safetensors" for folder in folders])
    except AdpsgdError as error:
        cluster.failed(str(error))
        return 0.0, float("nan")


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def _sum(reports: Sequence[dict[str, Any]], key: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.get(key, {}))
    return dict(sorted(total.items()))

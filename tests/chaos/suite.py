"""Run the suite once: start the nodes, hurt them, and see whether they end as they should."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from typing import Any

from chaos.cluster import ChaosFailure, Cluster
from chaos.conductor import Conductor
from chaos.fault import FaultKind, draw_schedule, last_storm, possible_kinds
from chaos.hosts import make_hosts
from chaos.mark import Mark
from chaos.plan import ChaosPlan
from chaos.verdict import Findings, hung_tasks, judge, settle, stuck_tasks
from chaos.view import agree, ask_all, consensus_distance

__all__ = ["Diary", "run_suite"]

START_LIMIT_S = 120.0
"""Until all nodes train: each imports PyTorch, at the same time as the others."""
VIEW_LIMIT_S = 10.0
"""From the last fault's end to one view everywhere."""
HURT_PART = 0.9
"""Of the target, planned for the time of the faults: it must not be reached before they end."""
LOOK_S = 2.0
CENSUS_S = 20.0
STANDSTILL_S = 30.0
"""With no step of anyone for so long, the run does not train any more."""
FINISH_LIMIT_S = 180.0
"""From the planned end of training to the end of the last node."""


class Diary:
    """Says on stderr what happens, and when."""

    def __init__(self) -> None:
        self._begin_s = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begin_s:7.1f} s] {text}", file=sys.stderr, flush=True)


class Watcher:
    """Looks at the nodes while faults are carried out: that someone always trains, and that no task hangs."""

    def __init__(self, cluster: Cluster, diary: Diary, findings: Findings) -> None:
        self._cluster = cluster
        self._diary = diary
        self._findings = findings
        self._samples = 0
        self._moved_s = time.monotonic()
        self._census_s = time.monotonic()
        self._complained: set[str] = set()

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        now = time.monotonic()
        statuses = await ask_all(self._cluster.current)
        samples = max((s.samples_total for s in statuses.values() if s is not None), default=0)
        if samples > self._samples:
            self._samples, self._moved_s = samples, now
        elif now - self._moved_s > STANDSTILL_S:
            self._cluster.failed(f"nobody has trained for {now - self._moved_s:.0f} s, at {samples} samples")
            self._moved_s = now
        for life in self._cluster.current:
            if not life.alive and not life.doomed and life.exit_code != 0 and str(life) not in self._complained:
                self._complained.add(str(life))
                self._cluster.failed(f"{life} ended by itself with {life.exit_code}: {'; '.join(life.errors()[-3:])}")
        if now - self._census_s > CENSUS_S:
            self._census_s = now
            self._findings.hung |= await hung_tasks([life for life in self._cluster.current if life.alive])
            self._report(statuses.values())

    def _report(self, statuses: Any) -> None:
        up = [s for s in statuses if s is not None]
        losses = [s.loss for s in up if not math.isnan(s.loss)]
        mean = sum(losses) / len(losses) if losses else math.nan
        target = self._cluster.target_samples
        self._diary.say(f"      {len(up)} nodes answer, {self._samples} of {target} samples, loss {mean:.3f}")


async def run_suite(plan: ChaosPlan) -> dict[str, Any]:
    """Carry out one run; returns the result, with `passed` and the reasons against it."""
    diary = Diary()
    mark = Mark()
    hosts = make_hosts(plan.nodes, mark)
    try:
        cluster = Cluster(plan, hosts, mark, diary.say)
        try:
            return await _run(plan, cluster, diary)
        finally:
            cluster.close()
    finally:
        hosts.close()


async def _run(plan: ChaosPlan, cluster: Cluster, diary: Diary) -> dict[str, Any]:
    kinds = possible_kinds(can_cut=cluster.hosts.can_cut, can_lose=cluster.hosts.can_lose)
    schedule = draw_schedule(plan.seed, plan.nodes, plan.fault_s, kinds)
    left_out = [kind.value for kind in FaultKind if kind not in kinds]
    diary.say(f"{plan.nodes} nodes on {cluster.hosts.kind} hosts, seed {plan.seed}; left out: {left_out or 'nothing'}")
    for fault in schedule:
        diary.say(f"plan  {fault.at_s:6.1f} s {fault}")
    findings, conductor = Findings(), Conductor(cluster, diary.say)
    try:
        await cluster.start_all(START_LIMIT_S)
        cluster.set_pace(0.0, HURT_PART, plan.fault_s)
        diary.say("all nodes train; the faults begin")
        await _hurt(cluster, conductor, Watcher(cluster, diary, findings), schedule)
        await _heal(cluster, conductor, findings, diary)
        await _finish(plan, cluster, diary)
    except ChaosFailure as failure:
        cluster.failed(str(failure))
    result = judge(cluster, findings, conductor.counts)
    result |= {
        "left_out": left_out,
        "trains_after_s_max": round(max(conductor.training_s, default=0.0), 2),
        "reasons": cluster.reasons,
        "passed": not cluster.reasons,
    }
    return result


async def _hurt(cluster: Cluster, conductor: Conductor, watcher: Watcher, schedule: Any) -> None:
    watching = asyncio.create_task(watcher.watch(), name="watcher")
    try:
        await conductor.play(schedule)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    if watching.done() and not watching.cancelled() and (error := watching.exception()) is not None:
        raise error


async def _heal(cluster: Cluster, conductor: Conductor, findings: Findings, diary: Diary) -> None:
    """See whether all is well again once nothing hurts any more."""
    diary.say("the last fault is over")
    findings.converge_s, views = await agree(cluster, conductor.last_end_s, VIEW_LIMIT_S)
    findings.views = len(views)
    if findings.converge_s is None:
        for life, status in (await ask_all(cluster.current)).items():
            members = "nothing" if status is None else ", ".join(sorted(str(e.member) for e in status.members))
            diary.say(f"      {life} believes: {members}")
    else:
        diary.say(f"one view {findings.converge_s:.1f} s after the last fault")
    await conductor.recovered()
    diary.say("a last storm: exchanges of all nodes are broken")
    await conductor.carry_out(last_storm(cluster.plan.nodes))
    storm_end_s = conductor.last_end_s
    findings.unsettled_live += await settle(cluster)
    findings.consensus = consensus_distance(await ask_all(cluster.current))
    quiet_s = cluster.plan.quiet_s
    diary.say(f"the models are {findings.consensus:.2e} apart; {quiet_s:g} s without faults show what hangs")
    await asyncio.sleep(storm_end_s + quiet_s - time.monotonic())
    findings.hung |= await stuck_tasks([life for life in cluster.current if life.alive], storm_end_s)
    diary.say(f"{len(findings.hung)} tasks hang; the nodes train to the target")
    cluster.set_pace(HURT_PART, 1.0, cluster.plan.tail_s)


async def _finish(plan: ChaosPlan, cluster: Cluster, diary: Diary) -> None:
    deadline = time.monotonic() + plan.tail_s + FINISH_LIMIT_S
    for life in cluster.current:
        code = await cluster.ended(life, max(1.0, deadline - time.monotonic()))
        if code != 0:
            cluster.failed(f"{life} finished with exit code {code}: {'; '.join(life.errors()[-3:])}")
    diary.say("all nodes have ended")

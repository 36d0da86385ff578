"""Carry out a schedule of faults on twins, and judge the run as the suite judges one of real processes."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adpsgd_node.core.membership.member import Phase
from adpsgd_node.daemon.boot import BootFile
from adpsgd_node.ids import Address
from adpsgd_node.net.fault import LinkFault
from adpsgd_node.net.memory import MemoryNetwork
from chaos.census import QUIET_S, Census
from chaos.conductor import crossing
from chaos.fault import DOWN, LEAST_UP, Fault, FaultKind, Schedule, last_storm
from chaos.hosts import Link
from chaos.ledger import Ledger, pair_drift, total_drift
from chaos.recorder import Recorder, recording
from chaos.twin import BATCH, STEP_S, Twin, TwinLoop, TwinWorld
from support.exact_view import exact_view

__all__ = ["TWIN_KINDS", "TwinResult", "run_twins"]

TWIN_KINDS = tuple(kind for kind in FaultKind if kind is not FaultKind.FULL_DISK)
"""A full disk is tested with real processes alone: twins write to no disk but a boot number. All else has its like in
memory."""

TWIN_DOWN = DOWN | {FaultKind.CLOCK_STEP}
"""All that a node in memory reads of the wall clock is its next life's number: a step of it begins one at once."""

SEEDS = 3
LOOK_S = 0.05
START_LIMIT_S = 30.0
TRAINS_AGAIN_LIMIT_S = 60.0
VIEW_LIMIT_S = 10.0
SETTLE_LIMIT_S = 20.0
FINISH_LIMIT_S = 120.0
MAIN_TASK = "twin run"
RESET_EVERY_S = 0.3
BASE = LinkFault(delay_min_s=0.002, delay_max_s=0.02, stream_reset=0.002)
"""Every link delays, and breaks one stream or another in mid-exchange."""


class WrongClockBoots(BootFile):
    """Boot numbers of a node whose clock is wrong."""

    def __init__(self, folder: Path, offset_s: float) -> None:
        super().__init__(folder)
        self._offset_ms = int(offset_s * 1000)

    def next(self) -> int:
        boot = max(time.time_ns() // 1_000_000 + self._offset_ms, self._last() + 1)
        self.note(boot)
        return boot


@dataclass
class TwinResult:
    """What a run has shown. `problems`: everything that should not be; empty when all is well."""

    problems: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    settled: Counter[str] = field(default_factory=Counter)
    lives: int = 0
    mass_drift: float = 0.0
    converge_s: float = 0.0
    error: float = 1.0
    """Largest relative distance of a node's model from the optimum."""
    apart: float = 1.0
    """Largest relative distance of two nodes' models."""


class TwinRun:
    """One run of `count` twins."""

    def __init__(self, world: TwinWorld, count: int, seed: int) -> None:
        self.result = TwinResult()
        self._world = world
        self._network = world.network
        self._rng = random.Random(seed)
        self._names = [f"node-{index}" for index in range(count)]
        self._addresses = [Address(f"10.0.0.{10 + index}:7400") for index in range(count)]
        self._twins: list[Twin] = []
        self._held = [asyncio.Lock() for _ in self._names]
        self._links = asyncio.Lock()
        self._cut: set[Link] = set()
        self._clocks_s = [0.0 for _ in self._names]
        self._census = Census()
        self._moves = 0

    async def run(self, schedule: Schedule) -> TwinResult:
        loop = asyncio.get_running_loop()
        self._census.install(loop)
        self._network.set_fault(BASE)
        self._twins = [await self._begin(host) for host in range(len(self._names))]
        await self._until(lambda: all(twin.training for twin in self._twins), START_LIMIT_S, "all to train")
        async with asyncio.TaskGroup() as group:
            begun = loop.time()
            for fault in schedule:
                await asyncio.sleep(max(0.0, begun + fault.at_s - loop.time()))
                group.create_task(self._guarded(fault), name=f"fault {fault}")
        await self._heal()
        await self._finish()
        self._judge()
        return self.result

    async def _begin(self, host: int) -> Twin:
        self.result.lives += 1
        name, seeds = self._names[host], self._addresses[:SEEDS]
        boots = WrongClockBoots(self._world.folder / name, self._clocks_s[host])
        return await Twin.start(self._world, name, self._addresses[host], seeds, boots)

    async def _until(self, holds: Callable[[], object], limit_s: float, what: str | Callable[[], str]) -> bool:
        """Wait in virtual time; what does not come is noted as a problem."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        while not holds():
            if loop.time() > deadline:
                told = what if isinstance(what, str) else what()
                self.result.problems.append(f"at {loop.time():.0f} s: waited {limit_s:g} s in vain for {told}")
                return False
            await asyncio.sleep(LOOK_S)
        return True

    # Faults

    async def _guarded(self, fault: Fault) -> None:
        linked = fault.kind in (FaultKind.PARTITION, FaultKind.ASYMMETRIC_PARTITION, FaultKind.ONE_WAY_CUT)
        locks = [self._links] if linked else [self._held[node] for node in fault.nodes]
        for lock in locks:
            await lock.acquire()
        try:
            if fault.kind in TWIN_DOWN:
                await self._until(lambda: self._others_train(fault), TRAINS_AGAIN_LIMIT_S, f"others than {fault.nodes}")
            await self._carrier(fault)(fault)
            self.result.faults[fault.kind.value] += 1
        finally:
            for lock in locks:
                lock.release()

    def _others_train(self, fault: Fault) -> bool:
        return sum(twin.training for host, twin in enumerate(self._twins) if host not in fault.nodes) >= LEAST_UP

    def _carrier(self, fault: Fault) -> Callable[[Fault], Awaitable[None]]:
        match fault.kind:
            case FaultKind.KILL_DAEMON | FaultKind.KILL_NODE | FaultKind.MOVE | FaultKind.CLOCK_STEP:
                return self._kill
            case FaultKind.TERMINATE:
                return self._terminate
            case FaultKind.ROLLING_RESTART:
                return self._roll
            case FaultKind.KILL_TRAINER:
                return lambda fault: self._twins[fault.nodes[0]].kill_trainer()
            case FaultKind.STOP_TRAINER:
                return self._stop_trainer
            case FaultKind.STOP_DAEMON:
                return self._isolate
            case FaultKind.RESET_STREAMS:
                return self._reset
            case FaultKind.LOSS:
                return self._lose
            case FaultKind.PARTITION:
                return lambda fault: self._without(
                    [*crossing(fault.nodes, fault.others), *crossing(fault.others, fault.nodes)], fault.seconds
                )
            case FaultKind.ONE_WAY_CUT | FaultKind.ASYMMETRIC_PARTITION:
                return lambda fault: self._without(crossing(fault.nodes, fault.others), fault.seconds)
            case _:
                raise AssertionError(f"twins have no {fault.kind}")

    async def _kill(self, fault: Fault) -> None:
        host = fault.nodes[0]
        await self._twins[host].kill()
        await asyncio.sleep(fault.seconds)
        if fault.kind is FaultKind.MOVE:
            self._move(host)
        self._clocks_s[host] += fault.clock_s
        await self._again(host)

    def _move(self, host: int) -> None:
        with self._healed():
            self._moves += 1
            self._addresses[host] = Address(f"10.0.1.{self._moves}:7400")

    async def _terminate(self, fault: Fault) -> None:
        host = fault.nodes[0]
        await self._twins[host].terminate()
        await asyncio.sleep(fault.seconds)
        await self._again(host)

    async def _roll(self, fault: Fault) -> None:
        for host in fault.nodes:
            left_open = await self._twins[host].terminate()
            self.result.problems += [f"{self._twins[host].identity} left with {what}" for what in left_open]
            await self._again(host)

    async def _again(self, host: int) -> None:
        self._twins[host] = twin = await self._begin(host)
        await self._until(lambda: twin.training, TRAINS_AGAIN_LIMIT_S, f"{twin.identity} to train")

    async def _stop_trainer(self, fault: Fault) -> None:
        twin = self._twins[fault.nodes[0]]
        twin.stopped.clear()
        await asyncio.sleep(fault.seconds)
        twin.stopped.set()

    async def _isolate(self, fault: Fault) -> None:
        """Let nothing in or out: as near as a node in the same loop comes to a stopped process."""
        host = fault.nodes[0]
        others = [other for other in range(len(self._names)) if other != host]
        self._twins[host].stopped.clear()
        async with self._links:
            await self._without([*crossing([host], others), *crossing(others, [host])], fault.seconds)
        self._twins[host].stopped.set()

    async def _reset(self, fault: Fault) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + fault.seconds
        while loop.time() < end:
            for node in fault.nodes:
                self._network.break_streams(self._addresses[node])
            await asyncio.sleep(RESET_EVERY_S)

    async def _lose(self, fault: Fault) -> None:
        source, target = self._addresses[fault.nodes[0]], self._addresses[fault.others[0]]
        lossy = LinkFault(delay_max_s=0.05, call_loss=fault.part, stream_reset=fault.part / 10)
        self._network.set_fault(lossy, source, target)
        await asyncio.sleep(fault.seconds)
        self._network.set_fault(BASE, source, target)

    async def _without(self, links: list[Link], seconds: float) -> None:
        for source, target in links:
            self._network.cut(self._addresses[source], self._addresses[target])
        self._cut.update(links)
        await asyncio.sleep(seconds)
        self._cut.difference_update(links)
        for source, target in links:
            self._network.heal(self._addresses[source], self._addresses[target])

    @contextmanager
    def _healed(self) -> Iterator[None]:
        """Have cuts follow a node to the address it takes meanwhile."""
        for source, target in self._cut:
            self._network.heal(self._addresses[source], self._addresses[target])
        yield
        for source, target in self._cut:
            self._network.cut(self._addresses[source], self._addresses[target])

    # Afterwards

    async def _heal(self) -> None:
        loop = asyncio.get_running_loop()
        healed = loop.time()
        everyone = frozenset(twin.identity for twin in self._twins)
        await self._until(
            lambda: {twin.live_view() for twin in self._twins} == {everyone},
            VIEW_LIMIT_S,
            lambda: "one view: " + "; ".join(f"{twin.identity} believes {twin.beliefs()}" for twin in self._twins),
        )
        self.result.converge_s = loop.time() - healed
        await self._reset(last_storm(len(self._twins)))
        over = loop.time()
        await self._until(lambda: not self._unsettled(), SETTLE_LIMIT_S, "settlings between living nodes")
        self.result.problems += [f"still unsettled: {pair}" for pair in self._unsettled()]
        await asyncio.sleep(over + QUIET_S - loop.time())
        self.result.problems += [f"hung: {task}" for task in self._stuck(over)]

    def _stuck(self, since: float) -> list[str]:
        """Describe the nodes' tasks that were begun before `since`, after which nothing has hurt any node."""
        begun = self._census.begun_s(asyncio.get_running_loop())
        return sorted(f"{task} since {s:.0f} s" for task, s in begun.items() if s < since and not _of_suite(task))

    def _unsettled(self) -> list[str]:
        living = {twin.identity for twin in self._twins}
        recorders = [self._world.recorders[identity] for identity in living]
        return [f"{r.identity} with {peer}" for r in recorders for peer in r.unsettled() if peer in living]

    async def _finish(self) -> None:
        finished = (Phase.FINISHED,)
        await self._until(
            lambda: all(twin.node.phase in finished for twin in self._twins), FINISH_LIMIT_S, "all to finish"
        )
        for twin in self._twins:
            if not await twin.node.engine.drain(SETTLE_LIMIT_S):
                self.result.problems.append(f"{twin.identity} ends with something unsettled")

    def _judge(self) -> None:
        result, world = self.result, self._world
        recorders = {twin.identity: world.recorders[twin.identity] for twin in self._twins}
        ledgers = {identity: recorder.ledger for identity, recorder in recorders.items()}
        views = [exact_view(recorder.plane) for recorder in recorders.values() if recorder.plane is not None]
        norm = min(float(np.linalg.norm(view)) for view in views)
        widest, where = pair_drift(ledgers, norm)
        own = [max(r.ledger.unattributed(), r.inbox_error()) / norm for r in recorders.values()]
        result.mass_drift = max([widest, total_drift(ledgers, norm), *own])
        if result.mass_drift > 1e-5:
            result.problems.append(f"mass drifts by {result.mass_drift:.2e}, {where}")
        for recorder in world.recorders.values():
            result.outcomes.update(recorder.outcomes)
            result.settled.update(recorder.settled)
            result.problems += recorder.defects
        result.problems += world.faults
        result.error = max(float(np.linalg.norm(view - world.optimum)) for view in views) / norm
        result.apart = max(float(np.linalg.norm(one - other)) for one in views for other in views) / norm

    async def close(self) -> None:
        for twin in self._twins:
            if twin.alive:
                await twin.kill()


def run_twins(schedule: Schedule, count: int, seed: int, seconds: float, folder: Path) -> TwinResult:
    """Run one schedule in virtual time."""
    network = MemoryNetwork(seed, keepalive_s=5.0)
    world = TwinWorld(network, folder, target_samples=int(count * BATCH * (seconds + 30 + QUIET_S) / STEP_S))

    def made(recorder: Recorder) -> None:
        world.recorders[recorder.identity] = recorder

    async def main() -> TwinResult:
        run = TwinRun(world, count, seed)
        try:
            return await run.run(schedule)
        finally:
            await run.close()

    loop = TwinLoop()
    try:
        with recording(made, lambda _: Ledger()):
            return loop.run_until_complete(loop.create_task(main(), name=MAIN_TASK))
    finally:
        loop.close()


def _of_suite(task: str) -> bool:
    return task.startswith(("trainer of", MAIN_TASK))

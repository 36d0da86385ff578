"""Carry out a schedule of faults on real processes, at its times, and say line by line what happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack

from adpsgd_node.core.membership.member import Phase
from chaos.cluster import ChaosFailure, Cluster
from chaos.fault import DOWN, LEAST_UP, Fault, FaultKind, Schedule
from chaos.hosts import Link
from chaos.life import Life
from chaos.verdict import ask_reports
from chaos.view import ask_all

__all__ = ["Conductor", "crossing"]

TRAINS_AGAIN_LIMIT_S = 120.0
"""From a daemon's start to its training, on a busy machine and with links cut."""
SCRIPT_LIMIT_S = 150.0
"""The same for a script that was killed: its daemon waits longer before each start in a row, up to 30 s."""
END_LIMIT_S = 40.0
"""From SIGTERM to a daemon's end: `--drain-timeout`, and what it takes to stop a script."""
ORPHAN_LIMIT_S = 20.0
"""From a daemon's death to the end of its trainer, which notices at its next step."""
RESET_EVERY_S = 0.3
LOOK_S = 0.1
CLOCK_ERROR_S = 1.0
"""By how much two readings of a clock may differ."""


class Conductor:
    """Carries out faults; two never have the same node at once. `say` hears of each beginning and end."""

    def __init__(self, cluster: Cluster, say: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.training_s: list[float] = []
        """From each start of a daemon until it trained."""
        self.last_end_s = time.monotonic()
        """When the latest fault was over: links healed, processes going on, the new life's process started."""
        self._cluster = cluster
        self._say = say
        self._held = [asyncio.Lock() for _ in cluster.names]
        self._links = asyncio.Lock()
        self._recoveries: set[asyncio.Task[None]] = set()

    async def play(self, schedule: Schedule) -> None:
        """Carry out all of it, and wait until every node trains again that a fault has hit."""
        begin_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                await asyncio.sleep(begin_s + fault.at_s - time.monotonic())
                group.create_task(self._guarded(fault), name=str(fault))

    async def recovered(self) -> None:
        """Wait until what the faults hit works again; each such wait has a limit of its own."""
        while self._recoveries:
            await asyncio.gather(*self._recoveries)

    async def _guarded(self, fault: Fault) -> None:
        async with AsyncExitStack() as stack:
            for lock in self._locks(fault):
                await stack.enter_async_context(lock)
            try:
                await self._bearable(fault)
                self._say(f"begin {fault}")
                await self.carry_out(fault)
            except ChaosFailure as failure:
                self._cluster.failed(f"{fault.kind.value}: {failure}")
            self._say(f"end   {fault}")

    async def _bearable(self, fault: Fault) -> None:
        """Wait until enough other nodes train: a fault that takes the run's last memory proves nothing."""
        if fault.kind not in DOWN:
            return
        deadline = time.monotonic() + SCRIPT_LIMIT_S
        while len(training := await self._training() - set(fault.nodes)) < LEAST_UP:
            if time.monotonic() > deadline:
                raise ChaosFailure(f"of the other nodes only {sorted(training)} train, for {SCRIPT_LIMIT_S:g} s")
            await asyncio.sleep(LOOK_S)

    async def _training(self) -> set[int]:
        """Return which nodes hold the model and answer."""
        statuses = await ask_all(self._cluster.current)
        return {life.host for life, s in statuses.items() if s is not None and s.self_member.phase is Phase.TRAINING}

    def _locks(self, fault: Fault) -> list[asyncio.Lock]:
        if fault.kind in (FaultKind.PARTITION, FaultKind.ASYMMETRIC_PARTITION, FaultKind.ONE_WAY_CUT):
            return [self._links]
        nodes = [self._held[node] for node in sorted(fault.nodes)]
        return [self._links, *nodes] if fault.kind is FaultKind.LOSS else nodes

    async def carry_out(self, fault: Fault) -> None:
        """Begin a fault, let it last, and end it."""
        await self._carriers()[fault.kind](fault)
        self.counts[fault.kind.value] += 1
        self.last_end_s = time.monotonic()

    def _carriers(self) -> dict[FaultKind, Callable[[Fault], Awaitable[None]]]:
        return {
            FaultKind.KILL_DAEMON: self._kill_daemon,
            FaultKind.KILL_NODE: self._kill_node,
            FaultKind.KILL_TRAINER: self._kill_trainer,
            FaultKind.STOP_DAEMON: self._stop_daemon,
            FaultKind.STOP_TRAINER: self._stop_trainer,
            FaultKind.TERMINATE: self._terminate,
            FaultKind.RESET_STREAMS: self._reset_streams,
            FaultKind.MOVE: self._move,
            FaultKind.CLOCK_STEP: self._clock_step,
            FaultKind.FULL_DISK: self._full_disk,
            FaultKind.LOSS: self._lose,
            FaultKind.ONE_WAY_CUT: self._cut,
            FaultKind.ASYMMETRIC_PARTITION: self._cut,
            FaultKind.PARTITION: self._partition,
            FaultKind.ROLLING_RESTART: self._roll,
        }

    def _life(self, fault: Fault) -> Life:
        return self._cluster.current[fault.nodes[0]]

    # Ends and new lives

    async def _kill_daemon(self, fault: Fault) -> None:
        life = self._life(fault)
        self._kill(life, fault)
        await asyncio.sleep(fault.seconds)
        self._start(life.host)
        self._recover(self._cluster.left(life, ORPHAN_LIMIT_S), f"the trainer of {life}")

    async def _kill_node(self, fault: Fault) -> None:
        life = self._life(fault)
        trainers = life.processes()
        self._kill(life, fault)
        for pid in trainers:
            _kill(pid)
        await asyncio.sleep(fault.seconds)
        self._start(life.host)

    async def _move(self, fault: Fault) -> None:
        life = self._life(fault)
        self._kill(life, fault)
        await self._cluster.ended(life, END_LIMIT_S)
        address = self._cluster.hosts.move(life.host)
        await asyncio.sleep(fault.seconds)
        self._say(f"      {life.name} is at {address} now")
        self._start(life.host)

    async def _terminate(self, fault: Fault) -> None:
        life = self._life(fault)
        await self._end_in_order(life, fault.kind.value)
        await asyncio.sleep(fault.seconds)
        self._start(life.host)

    async def _roll(self, fault: Fault) -> None:
        for host in fault.nodes:
            life = self._cluster.current[host]
            await self._end_in_order(life, fault.kind.value)
            began_s = time.monotonic()
            new = self._cluster.start(host)
            await self._cluster.training(new, TRAINS_AGAIN_LIMIT_S)
            self._trains(new, began_s)

    async def _end_in_order(self, life: Life, why: str) -> None:
        await self._cluster.wait_for(life, lambda _: True, TRAINS_AGAIN_LIMIT_S, "it does not answer")
        life.doomed = why  # before it answers, it might not have begun to listen to signals
        life.signal(signal.SIGTERM)
        code = await self._cluster.ended(life, END_LIMIT_S)
        if code != 0:
            self._cluster.failed(f"{life} ended with exit code {code} after SIGTERM: {'; '.join(life.errors()[-3:])}")
        await self._cluster.left(life, ORPHAN_LIMIT_S)

    def _kill(self, life: Life, fault: Fault) -> None:
        life.doomed = fault.kind.value
        life.signal(signal.SIGKILL)

    def _start(self, host: int) -> None:
        began_s = time.monotonic()
        life = self._cluster.start(host)

        async def train() -> None:
            await self._cluster.training(life, TRAINS_AGAIN_LIMIT_S)
            self._trains(life, began_s)

        self._recover(train(), str(life))

    def _trains(self, life: Life, began_s: float) -> None:
        took_s = time.monotonic() - began_s
        self.training_s.append(took_s)
        self._say(f"      {life} trains {took_s:.1f} s after its start")

    # Interruptions

    async def _stop_daemon(self, fault: Fault) -> None:
        life = self._life(fault)
        life.stopped = True
        life.signal(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        life.signal(signal.SIGCONT)
        life.stopped = False

    async def _stop_trainer(self, fault: Fault) -> None:
        life = self._life(fault)
        life.signal_trainer(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        life.signal_trainer(signal.SIGCONT)

    async def _kill_trainer(self, fault: Fault) -> None:
        life = self._life(fault)
        before = await self._cluster.training(life, SCRIPT_LIMIT_S)
        began_s = time.monotonic()
        life.signal_trainer(signal.SIGKILL)

        async def train() -> None:
            await self._cluster.training(life, SCRIPT_LIMIT_S, beyond_step=before.step + 2)
            self._say(f"      the trainer of {life} steps {time.monotonic() - began_s:.1f} s after its end")

        self._recover(train(), f"the trainer of {life}")

    async def _reset_streams(self, fault: Fault) -> None:
        end_s = time.monotonic() + fault.seconds
        while time.monotonic() < end_s:
            for life in (self._cluster.current[node] for node in fault.nodes):
                if life.alive and life.identity is not None:
                    life.signal(signal.SIGUSR1)
            await asyncio.sleep(RESET_EVERY_S)

    async def _clock_step(self, fault: Fault) -> None:
        """Step the clock under a life that trains: it trains on. The clock stays wrong, also for the node's next lives.

        One of them therefore begins behind the clock by which an earlier one was numbered, or far ahead of it.
        """
        life = self._life(fault)
        before = await self._cluster.training(life, TRAINS_AGAIN_LIMIT_S)
        offset_s = self._cluster.step_clock(life, fault.clock_s)
        await asyncio.sleep(fault.seconds)
        after = await self._cluster.training(life, TRAINS_AGAIN_LIMIT_S, beyond_step=before.step)
        if after.self_member.id != before.self_member.id:
            raise ChaosFailure(f"{life} calls itself {after.self_member.id} since its clock was set")
        report = (await ask_reports([life])).get(life)
        if report is None or abs(report["clock_offset_s"] - offset_s) > CLOCK_ERROR_S:
            raise ChaosFailure(f"{life} does not read a clock that is {offset_s:+.0f} s wrong: nothing was tested")

    async def _full_disk(self, fault: Fault) -> None:
        life, disk = self._life(fault), self._cluster.disks[fault.nodes[0]]
        before = await self._cluster.training(life, TRAINS_AGAIN_LIMIT_S)
        disk.fill(life.processes())
        try:
            await asyncio.sleep(fault.seconds)
            await self._cluster.training(life, TRAINS_AGAIN_LIMIT_S, beyond_step=before.step)
        finally:
            disk.clear(life.processes())

    # Links

    async def _lose(self, fault: Fault) -> None:
        link = fault.nodes[0], fault.others[0]
        self._cluster.hosts.lose(link, fault.part)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self._cluster.hosts.lose(link, 0.0)

    async def _cut(self, fault: Fault) -> None:
        await self._without(list(crossing(fault.nodes, fault.others)), fault.seconds)

    async def _partition(self, fault: Fault) -> None:
        links = [*crossing(fault.nodes, fault.others), *crossing(fault.others, fault.nodes)]
        await self._without(links, fault.seconds)

    async def _without(self, links: list[Link], seconds: float) -> None:
        self._cluster.hosts.cut(links)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._cluster.hosts.heal(links)

    def _recover(self, waiting: Awaitable[None], what: str) -> None:
        """Wait in the background for what a fault's end should bring, while other faults go on."""

        async def wait() -> None:
            try:
                await waiting
            except ChaosFailure as failure:
                if not self._excused(what):
                    self._cluster.failed(str(failure))

        task = asyncio.create_task(wait(), name=f"recovery of {what}")
        self._recoveries.add(task)
        task.add_done_callback(self._recoveries.discard)

    def _excused(self, what: str) -> bool:
        """Tell whether a later fault has ended the life that was waited for, or it has reached the run's end."""
        lives = [life for life in self._cluster.all_lives if what.endswith(str(life)) and not life.alive]
        return any(life.doomed or life.exit_code == 0 for life in lives)


def crossing(sources: Iterable[int], targets: Iterable[int]) -> list[Link]:
    """List the links that lead from one group to the other."""
    others = list(targets)
    return [(source, target) for source in sources for target in others]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended since it was looked at
        os.kill(pid, signal.SIGKILL)

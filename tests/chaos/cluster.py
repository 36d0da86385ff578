"""The nodes of one run, each on a host of its own: start them, end them, start them again, and leave none behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from adpsgd_node.config import runtime_dir
from adpsgd_node.core.membership.member import Phase
from adpsgd_node.wire.admin import Status
from chaos import launch
from chaos.disk import Disk, make_disk, unmount_stale
from chaos.hosts import Hosts
from chaos.life import LIFE, Life
from chaos.mark import OWNER, Mark, end_processes
from chaos.plan import BATCH, ChaosPlan

__all__ = ["ChaosFailure", "Cluster"]

RUN = "chaos"
TRAINER = Path(__file__).with_name("trainer.py")
SEEDS = 3
"""Nodes whose addresses every node is given."""
LOOK_S = 0.2
PACE_FILE = "pace.json"
LOSS_FILE = "loss.jsonl"
"""A life's losses, one a step."""
SETTINGS = {
    "run": RUN,
    "membership": "local",
    "codec": "fp32",
    "chunk-bytes": "32768",  # eight chunks: exchanges break in the middle too
    "window": "3",
    "exchanges-per-step": "0.5",
    "join-timeout": "0",
    "max-restarts": "1000",
    "finish-timeout": "60",
    "checkpoint-interval": "10",
    "drain-timeout": "15",
}


class ChaosFailure(AssertionError):
    """Something that the suite waits for did not come in time."""


class Cluster:
    """All nodes of one run. `say` hears of what happens."""

    def __init__(self, plan: ChaosPlan, hosts: Hosts, mark: Mark, say: Callable[[str], None]) -> None:
        end_processes()  # what a run that was killed has left would take the processors of this one
        self.plan = plan
        self.hosts = hosts
        self.names = [f"node-{index}" for index in range(plan.nodes)]
        self.lives: list[list[Life]] = [[] for _ in self.names]
        self.reasons: list[str] = []
        """Why the run has failed, as far as is known yet."""
        self.starts_behind = 0
        """Lives that began with the wall clock behind what it was when the life before them began."""
        self._clocks_s = [0.0 for _ in self.names]
        self._mark = mark
        self._say = say
        self._output = plan.output.absolute()
        self._empty_output()
        self._runtime = _make_runtime(mark)
        self._pace = self._output / PACE_FILE
        self.disks: list[Disk] = [make_disk(self._output / name / "disk", mark) for name in self.names]

    @property
    def current(self) -> list[Life]:
        """The latest life of every node."""
        return [lives[-1] for lives in self.lives]

    @property
    def all_lives(self) -> list[Life]:
        return [life for lives in self.lives for life in lives]

    @property
    def target_samples(self) -> int:
        return int(self.plan.nodes * self.plan.steps_per_s * BATCH * self.plan.train_s)

    def start(self, host: int, *, options: Sequence[str] = ()) -> Life:
        """Begin a new life of one node, by its clock as it is; `options` come on top of what all have."""
        name, number, clock_s = self.names[host], len(self.lives[host]) + 1, self._clocks_s[host]
        if self.lives[host] and self.lives[host][-1].exit_code != 0:
            self.lives[host][-1].drop_ledger()  # its memory is gone: nobody's halves are compared with its own
        folder = self._output / name / f"life-{number}"
        folder.mkdir(parents=True)
        log = folder / "node.log"
        command = [sys.executable, launch.__file__, str(folder), str(clock_s), "up"]
        with log.open("wb") as file:
            process = subprocess.Popen(
                self.hosts.command(host, [*command, *self._options(host), *options, *self._script(folder)]),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**_clean_environment(), **self._environment(folder)},
                cwd=folder,
                start_new_session=True,
            )
        socket = runtime_dir({"XDG_RUNTIME_DIR": str(self._runtime)}) / f"{RUN}.{name}.sock"
        life = Life(name, host, number, folder, socket, log, process)
        life.clock_offset_s = clock_s
        self.starts_behind += bool(self.lives[host]) and self.lives[host][-1].clock_offset_s > clock_s
        self.lives[host].append(life)
        return life

    def step_clock(self, life: Life, seconds: float) -> float:
        """Step the wall clock of a running life, and of those that follow it; returns by how much it is wrong now."""
        self._clocks_s[life.host] += seconds
        (life.folder / launch.CLOCK_FILE).write_text(str(self._clocks_s[life.host]))
        life.signal(signal.SIGHUP)
        return self._clocks_s[life.host]

    def _script(self, folder: Path) -> list[str]:
        options = [f"--pace={self._pace}", f"--losses={folder / LOSS_FILE}", f"--batch-size={BATCH}"]
        return [str(TRAINER), *options, *["--steady"] * self.plan.steady]

    def _options(self, host: int) -> list[str]:
        address = self.hosts.address(host)
        seeds = [seed for seed in (self.hosts.address(index) for index in range(SEEDS)) if seed != address]
        options = {
            **SETTINGS,
            "name": self.names[host],
            "listen": address,
            "http": self.hosts.http(host),
            "seeds": ",".join(seeds),
            "output": str(self.disks[host].folder / "out"),
            "samples": str(self.target_samples),
            "seed": str(self.plan.seed),
        }
        return [f"--{key}={value}" for key, value in options.items()] + ["--insecure"] * self.hosts.remote

    def _environment(self, folder: Path) -> dict[str, str]:
        return {"XDG_RUNTIME_DIR": str(self._runtime), OWNER: str(self._mark), LIFE: str(folder)}

    async def start_all(self, limit_s: float) -> None:
        """Start every node and wait until all of them train."""
        for host in range(len(self.names)):
            self.start(host)
        for life in self.current:
            await self.training(life, limit_s)

    def set_pace(self, first: float, last: float, seconds: float) -> None:
        """Tell the trainers to bring the run from one part of its target to another, from now on."""
        partial = self._pace.with_suffix(".partial")
        plan = {"begin_s": time.monotonic(), "duration_s": seconds, "fractions": [first, last]}
        partial.write_text(json.dumps(plan))
        partial.rename(self._pace)

    async def training(self, life: Life, limit_s: float, *, beyond_step: int = 0) -> Status:
        """Wait until a node trains; returns what it said then."""
        return await self.wait_for(
            life, lambda s: s.self_member.phase is Phase.TRAINING and s.step > beyond_step, limit_s, "it does not train"
        )

    async def wait_for(self, life: Life, holds: Callable[[Status], object], limit_s: float, what: str) -> Status:
        """Wait until `holds` of a node's status. Raises `ChaosFailure` when it ends or time runs out."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if not life.alive:
                raise ChaosFailure(f"{life} ended with exit code {life.exit_code}: {'; '.join(life.errors()[-3:])}")
            status = await life.ask()
            if status is not None and holds(status):
                return status
            await asyncio.sleep(LOOK_S)
        raise ChaosFailure(f"{life}: {what} after {limit_s:g} s; its last status: {_brief(life.status)}")

    async def ended(self, life: Life, limit_s: float) -> int:
        """Wait for a daemon's end; returns its exit code."""
        deadline = time.monotonic() + limit_s
        while life.alive:
            if time.monotonic() > deadline:
                raise ChaosFailure(f"{life} has not ended after {limit_s:g} s; its last status: {_brief(life.status)}")
            await asyncio.sleep(LOOK_S / 4)
        code = life.exit_code
        assert code is not None
        return code

    async def left(self, life: Life, limit_s: float) -> None:
        """Wait until nothing of a life whose daemon has ended is left, its trainer above all."""
        deadline = time.monotonic() + limit_s
        while pids := life.processes():
            if time.monotonic() > deadline:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):  # it has ended since it was looked at
                        os.kill(pid, signal.SIGKILL)
                raise ChaosFailure(f"processes {pids} of {life} outlived their daemon by {limit_s:g} s")
            await asyncio.sleep(LOOK_S)

    def failed(self, reason: str) -> None:
        """Note that the run has failed; it goes on, so that all is known at its end."""
        self.reasons.append(reason)
        self._say(f"FAILED: {reason}")

    def close(self) -> None:
        """Leave nothing behind but the folder with the logs."""
        end_processes(str(self._mark))
        for life in self.all_lives:
            life.process.wait()
            life.drop_ledger()
        for disk in self.disks:
            disk.close()
        shutil.rmtree(self._runtime, ignore_errors=True)

    def _empty_output(self) -> None:
        unmount_stale()
        shutil.rmtree(self._output, ignore_errors=True)
        self._output.mkdir(parents=True)


def _brief(status: Status | None) -> str:
    if status is None:
        return "none"
    own = status.self_member
    problem = status.problem or "no problem"
    return f"{own.phase.name.lower()} at step {status.step}, {len(status.members)} members, {problem}"


def _make_runtime(mark: Mark) -> Path:
    """Make the folder of the nodes' sockets, whose paths must be short, and remove those of runs that are over."""
    base = Path(tempfile.gettempdir())
    for entry in base.iterdir():
        if Mark.stale(entry.name):
            shutil.rmtree(entry, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{mark}-", dir=base))


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ADPSGD_")}

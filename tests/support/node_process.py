"""Real nodes for a test: `adpsgd-node up` as a process of its own, watched from outside, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adpsgd_node.core.membership.member import MemberState, Phase
from adpsgd_node.daemon.admin import fetch_status
from adpsgd_node.errors import TransportError
from adpsgd_node.plane import Layout, Plane, TensorSpec
from adpsgd_node.wire.admin import Status
from support import numpy_trainer

TRAINER = Path(numpy_trainer.__file__)

PATIENCE_S = 60.0
"""Limit of every wait: far more than needed, as the machine may be busy."""
LOOK_EVERY_S = 0.05
ASK_LIMIT_S = 5.0

_MARK = "NODE_PROCESS_TEST"
"""Environment variable by which the processes of one test are found, those of killed daemons too."""


@dataclass(slots=True)
class NodeProcess:
    """One `adpsgd-node up` and what can be known of it."""

    name: str
    run: str
    folder: Path
    """Holds its log, its script's log and its output."""
    runtime: Path
    process: subprocess.Popen[bytes]
    planes: list[Plane] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def socket(self) -> Path:
        return self.runtime / "adpsgd-node" / f"{self.run}.{self.name}.sock"

    @property
    def model(self) -> Path:
        return self.folder / "out" / "model.safetensors"

    def text(self) -> str:
        """Read all that daemon and script have written to stdout and stderr."""
        return (self.folder / "node.log").read_text(errors="replace")

    def last_error(self) -> str:
        """Give the last line in which the node, not its script, says what went wrong."""
        lines = [line for line in self.text().splitlines() if " ERROR " in line or line.startswith("adpsgd-node: ")]
        return lines[-1] if lines else ""

    def script_log(self) -> list[dict[str, Any]]:
        """Read what its numpy trainer has logged."""
        return numpy_trainer.read_log(self.folder / "script.jsonl")

    def events(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.script_log() if entry["event"] == event]

    async def status(self) -> Status:
        return await fetch_status(self.socket, ASK_LIMIT_S)

    async def wait_for(self, holds: Callable[[Status], object], what: str = "the condition") -> Status:
        """Wait until `holds` of the node's status; what it said last is in the failure."""
        last: object = "no status yet"
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    if self.process.poll() is not None:
                        raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.text()}")
                    with contextlib.suppress(TransportError):
                        status = await self.status()
                        last = status
                        if holds(status):
                            return status
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            raise AssertionError(f"{self.name}: {what} did not come; last {last}\n{self.text()}") from None

    async def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait until something else holds, such as a line in a log."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not holds():
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            raise AssertionError(f"{self.name}: {what} did not come\n{self.text()}") from None

    async def says(self, text: str) -> None:
        await self.until(lambda: text in self.text(), repr(text))

    async def up(self) -> Status:
        return await self.wait_for(lambda status: True, "its admin socket")

    async def training(self) -> Status:
        return await self.wait_for(lambda s: s.self_member.phase is Phase.TRAINING and s.step > 0, "its first step")

    async def sees(self, name: str, *states: MemberState) -> Status:
        """Wait until this node believes `name` to be in one of the states."""
        wanted = " or ".join(state.name for state in states)
        return await self.wait_for(lambda s: state_of(s, name) in states, f"{name} being {wanted}")

    async def ended(self) -> int:
        """Wait for the daemon to end; returns its exit code."""
        await self.until(lambda: self.process.poll() is not None, "its end")
        code = self.process.returncode
        assert code is not None
        return code

    def signal(self, number: signal.Signals) -> None:
        """Signal the daemon, and only it."""
        self.process.send_signal(number)

    def hold_plane(self, specs: Sequence[TensorSpec], chunk_bytes: int) -> Plane:
        """Map the daemon's plane; the mapping outlives the node."""
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            if "adpsgd-plane" in os.readlink(entry):
                fd = os.open(entry, os.O_RDWR | os.O_CLOEXEC)
                plane = Plane.attach(fd, Layout.build(specs, chunk_bytes))
                self.planes.append(plane)
                return plane
        raise AssertionError(f"{self.name} has no plane")


@dataclass(slots=True)
class Nodes:
    """The nodes of one test."""

    folder: Path
    runtime: Path
    mark: str
    started: dict[str, NodeProcess] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(
        self,
        name: str,
        *options: str,
        script: Sequence[str] | None = None,
        seeds: Sequence[str] = (),
        run: str = "test",
        environment: Mapping[str, str] | None = None,
        runtime: str = "",
        program: Sequence[str] = ("-m", "adpsgd_cli"),
    ) -> NodeProcess:
        """Start a node; `script` is what stands behind the options, or (default) options of the numpy trainer.

        runtime: a folder of its own for its sockets, as on another machine. program: what Python runs as the daemon.
        """
        folder = self.folder / f"{name}{runtime or ''}-{next(self._numbers)}"
        folder.mkdir()
        sockets = self.runtime / runtime if runtime else self.runtime
        sockets.mkdir(exist_ok=True)
        defaults = {
            "name": name,
            "run": run,
            "listen": "127.0.0.1:0",
            "http": "127.0.0.1:0",
            "membership": "local",
            "output": str(folder / "out"),
        }
        given = {option.partition("=")[0].removeprefix("--") for option in options}
        flags = [f"--{key}={value}" for key, value in defaults.items() if key not in given]
        flags += [f"--seeds={','.join(seeds)}"] if seeds else []
        with (folder / "node.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *program, "up", *flags, *options, *self._script(script, folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**_clean_environment(), "XDG_RUNTIME_DIR": str(sockets), _MARK: self.mark, **(environment or {})},
                cwd=folder,
                start_new_session=True,
            )
        node = NodeProcess(name, run, folder, sockets, process)
        self.started[f"{name}{runtime}"] = node
        return node

    async def start_together(
        self, *names: str, options: Sequence[str] = (), scripts: Mapping[str, Sequence[str]] | None = None
    ) -> list[NodeProcess]:
        """Start several nodes whose scripts take their first step when all have joined: none can finish without them.

        `scripts`: further options of single nodes' scripts.
        """
        gate = self.folder / "all-have-joined"
        own = dict(scripts or {})
        first = self.start(names[0], *options, script=[*trainer(), f"--start-when={gate}", *own.get(names[0], ())])
        seeds = [(await first.up()).self_member.address]
        others = [
            self.start(name, *options, script=[*trainer(), f"--start-when={gate}", *own.get(name, ())], seeds=seeds)
            for name in names[1:]
        ]
        group = [first, *others]
        for node in group:
            await node.wait_for(
                lambda s: sum(e.member.phase is Phase.TRAINING for e in s.members) == len(names), "everyone being there"
            )
        gate.touch()
        return group

    async def start_run(
        self, *names: str, options: Sequence[str] = (), script: Sequence[str] = ()
    ) -> list[NodeProcess]:
        """Start several nodes of one run, the first being everyone's seed."""
        first = self.start(names[0], *options, script=[*trainer(), *script])
        address = (await first.up()).self_member.address
        others = [self.start(name, *options, script=[*trainer(), *script], seeds=[address]) for name in names[1:]]
        return [first, *others]

    def _script(self, script: Sequence[str] | None, folder: Path) -> list[str]:
        script = trainer() if script is None else script
        return [part.replace("LOG", str(folder / "script.jsonl")) if part == "--log=LOG" else part for part in script]

    def close(self) -> None:
        """Kill what still runs, wherever it has gone, and remove the sockets."""
        for node in self.started.values():
            for plane in node.planes:
                plane.close()
        while pids := self._marked():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for node in self.started.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    node.process.wait(0.2)
        shutil.rmtree(self.runtime, ignore_errors=True)

    def _marked(self) -> list[int]:
        """Find the living processes of this test by their environment."""
        mark = f"{_MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found


def trainer(*options: str) -> list[str]:
    """Give the command line of the numpy trainer, with its log where `script_log` looks for it."""
    return [str(TRAINER), "--log=LOG", *options]


@asynccontextmanager
async def node_group(folder: Path) -> AsyncIterator[Nodes]:
    """Hand out nodes; on leaving, none of their processes is left."""
    # A socket's path may have about 100 bytes: pytest's own folders are too deep.
    runtime = Path(tempfile.mkdtemp(prefix="nodes-"))
    nodes = Nodes(folder, runtime, uuid.uuid4().hex)
    try:
        yield nodes
    finally:
        nodes.close()


def state_of(status: Status, name: str) -> MemberState | None:
    """Say what the asked node believes of `name`; None when it knows no such member."""
    return next((entry.member.state for entry in status.members if entry.member.name == name), None)


def phase_of(status: Status, name: str) -> Phase | None:
    return next((entry.member.phase for entry in status.members if entry.member.name == name), None)


def relative_distance(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ADPSGD_")}

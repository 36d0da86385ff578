"""Start the nodes of a demo as processes of this machine, kill one, and leave none behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from adpsgd_cli.demo.plan import RUN, DemoPlan
from adpsgd_node.config import child_environment, runtime_dir
from adpsgd_node.errors import BindError
from adpsgd_node.setting import choice

__all__ = ["Cluster", "NodeProcess"]

HOST = "127.0.0.1"
FIRST_PORT, LAST_PORT = 20_000, 29_999
"""Below the range from which systems pick ports of outgoing connections: what is free now is free a moment later."""
MAX_PORT_TRIES = 1_000
STOP_GRACE_S = 10.0
"""Time the nodes get to end in order after SIGTERM, before SIGKILL."""
MODEL_FILE = "model.safetensors"
RESULT_FILE = "result.json"


@dataclass(slots=True)
class NodeProcess:
    """One node of the demo: its daemon's process, and where it writes."""

    name: str
    address: str
    folder: Path
    log: Path
    socket: Path
    process: asyncio.subprocess.Process
    killed: bool = False

    @property
    def returncode(self) -> int | None:
        return self.process.returncode

    @property
    def model(self) -> Path:
        return self.folder / MODEL_FILE

    @property
    def result(self) -> Path:
        return self.folder / RESULT_FILE

    def last_lines(self, count: int) -> list[str]:
        """Read the end of the node's log."""
        # Without a log there is nothing to show, and the caller tells of a failure that matters more.
        with contextlib.suppress(OSError), self.log.open(errors="replace") as file:
            return list(deque((line.rstrip() for line in file), maxlen=count))
        return []


class Cluster:
    """The nodes of one demo, with sockets in a temporary folder of their own."""

    def __init__(self, plan: DemoPlan) -> None:
        self._plan = plan
        self._runtime = Path(tempfile.mkdtemp(prefix="adpsgd-demo-"))
        self.nodes: dict[str, NodeProcess] = {}

    @property
    def survivors(self) -> list[NodeProcess]:
        """The nodes that nobody killed."""
        return [node for node in self.nodes.values() if not node.killed]

    async def start(self) -> None:
        """Start all nodes at once; the first two are everyone's seeds."""
        ports = free_ports(2 * self._plan.nodes)
        addresses = [f"{HOST}:{port}" for port in ports[: self._plan.nodes]]
        http = [f"{HOST}:{port}" for port in ports[self._plan.nodes :]]
        for name, address, http_address in zip(self._plan.names, addresses, http, strict=True):
            seeds = [seed for seed in addresses[:2] if seed != address]
            self.nodes[name] = await self._start_node(name, address, http_address, seeds)

    def kill(self, name: str, trainer_pid: int) -> None:
        """Kill a node as a power cut would: daemon and trainer at once, by SIGKILL."""
        node = self.nodes[name]
        node.killed = True
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(node.process.pid, signal.SIGKILL)
        if trainer_pid:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself, or with its daemon
                os.killpg(trainer_pid, signal.SIGKILL)  # the trainer leads a session of its own

    async def stop(self) -> None:
        """End whatever still runs, in order first and by force then, and remove the sockets."""
        for signal_number, grace_s in ((signal.SIGTERM, STOP_GRACE_S), (signal.SIGKILL, STOP_GRACE_S)):
            running = [node.process for node in self.nodes.values() if node.returncode is None]
            if not running:
                break
            for process in running:
                with contextlib.suppress(ProcessLookupError):  # it has ended since it was looked at
                    os.killpg(process.pid, signal_number)
            await asyncio.wait([asyncio.ensure_future(process.wait()) for process in running], timeout=grace_s)
        shutil.rmtree(self._runtime, ignore_errors=True)

    async def _start_node(self, name: str, address: str, http: str, seeds: list[str]) -> NodeProcess:
        folder = (self._plan.output / name).absolute()
        log = folder.with_name(f"{name}.log")
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (MODEL_FILE, RESULT_FILE):
            (folder / stale).unlink(missing_ok=True)  # an earlier demo's: must not pass for this one's
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # nor be gone on from
        environment = child_environment(overrides={"XDG_RUNTIME_DIR": str(self._runtime)})
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "adpsgd_cli", "up"),
                *_options(self._plan, name, address, http, seeds, folder),
                *self._plan.options,
                *self._plan.script(name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # ^C ends the demo, which then ends its nodes in order
            )
        sockets = runtime_dir({"XDG_RUNTIME_DIR": str(self._runtime)})
        return NodeProcess(name, address, folder, log, sockets / f"{RUN}.{name}.sock", process)


def free_ports(count: int) -> list[int]:
    """Find ports on which nobody listens now. Raises `BindError` when there are too few."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.sample(range(FIRST_PORT, LAST_PORT + 1), MAX_PORT_TRIES):
            if len(found) == count:
                return found
            candidate = held.enter_context(socket.socket())
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue  # taken; there are others
            found.append(port)
    raise BindError(f"found {len(found)} of {count} free ports from {FIRST_PORT} to {LAST_PORT}: start fewer nodes")


def _options(plan: DemoPlan, name: str, address: str, http: str, seeds: list[str], folder: Path) -> list[str]:
    options = {
        "name": name,
        "run": RUN,
        "listen": address,
        "http": http,
        "seeds": ",".join(seeds),
        "output": str(folder),
        "topology": choice(plan.topology),
        "codec": choice(plan.codec),
        "tolerance": str(plan.tolerance),
        "seed": str(plan.seed),
        "membership": "local",
    }
    if not plan.in_samples:
        options["epochs"] = str(plan.epochs if plan.epochs is not None else plan.task.default_epochs)
    return [f"--{key}={value}" for key, value in options.items()]

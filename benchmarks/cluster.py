"""Start the nodes of a benchmark as processes of this machine, read when their steps ended, and leave none behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adpsgd_cli.demo.cluster import HOST, free_ports
from adpsgd_node.config import child_environment

__all__ = ["BenchmarkNode", "Cluster"]

SCRIPT = Path(__file__).with_name("timed_steps.py")
STOP_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class BenchmarkNode:
    """One node: its daemon's process, which leads a group of its own, and where its trainer writes."""

    name: str
    daemon: subprocess.Popen[bytes]
    address: str
    http: str
    log: Path
    """The trainer's process id, then the time of each step."""
    output: Path

    def steps(self) -> list[float]:
        """Read when each step ended, in seconds of CLOCK_MONOTONIC."""
        with contextlib.suppress(FileNotFoundError):
            lines = self.log.read_text().splitlines(keepends=True)[1:]
            return [float(line) for line in lines if line.endswith("\n")]
        return []

    def last_lines(self, count: int = 5) -> str:
        """Read the end of what daemon and trainer said."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-count:])

    def exchanges(self) -> int:
        """Ask the daemon how many exchanges it has completed, in either role."""
        return int(self.metric("adpsgd_exchanges_total{", '"complete"'))

    def metric(self, name: str, label: str = "") -> float:
        """Ask the daemon for the sum of a metric's series, those with `label` in them."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=5.0) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and label in line)

    def kill(self) -> None:
        """Kill daemon and trainer at once, as a power cut would."""
        os.killpg(self.daemon.pid, signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # not yet there; ended with its daemon
            trainer = int(self.log.read_text().split(maxsplit=1)[0])
            os.killpg(trainer, signal.SIGKILL)  # it leads a session of its own
        self.daemon.wait(STOP_LIMIT_S)


class Cluster:
    """A run of several nodes, each with a trainer that logs its steps; a context manager."""

    def __init__(
        self,
        folder: Path,
        nodes: int,
        step_ms: float,
        width: int,
        *,
        options: Sequence[str] = (),
        script_options: Sequence[str] = (),
    ) -> None:
        """Start them; `options` are further ones of each node, `script_options` of its script."""
        self.nodes: list[BenchmarkNode] = []
        ports = free_ports(2 * nodes)
        addresses = [f"{HOST}:{port}" for port in ports[:nodes]]
        for number in range(nodes):
            seeds = ",".join(address for address in addresses[:2] if address != addresses[number])
            log = folder / f"node-{number}.steps"
            http = f"{HOST}:{ports[nodes + number]}"
            flags = [f"--name=node-{number}", "--run=bench", f"--listen={addresses[number]}", f"--http={http}"]
            flags += [f"--seeds={seeds}", f"--output={folder / f'node-{number}'}", "--membership=local"]
            script = [str(SCRIPT), f"--log={log}", f"--step-ms={step_ms}", f"--width={width}"]
            script += script_options
            output = folder / f"node-{number}.log"
            with output.open("wb") as file:
                daemon = subprocess.Popen(
                    [sys.executable, "-m", "adpsgd_cli", "up", *flags, *options, *script],
                    env=child_environment(overrides={"XDG_RUNTIME_DIR": str(folder)}),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self.nodes.append(BenchmarkNode(f"node-{number}", daemon, addresses[number], http, log, output))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGCONT, signal.SIGTERM):
            for node in self.nodes:
                if node.daemon.poll() is None:
                    os.killpg(node.daemon.pid, number)
        for node in self.nodes:
            try:
                node.daemon.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                node.kill()

    def wait_for_training(self, steps: int, limit_s: float) -> None:
        """Wait until every node has made so many steps, and has exchanged if there is another."""
        self._wait_until(lambda node: len(node.steps()) >= steps, limit_s)
        if len(self.nodes) > 1:
            self._wait_until(lambda node: node.exchanges() > 0, limit_s)

    def _wait_until(self, condition: Callable[[BenchmarkNode], bool], limit_s: float) -> None:
        """Look four times a second. Raises `TimeoutError` with the last words of a node that is not so far."""
        until = time.monotonic() + limit_s
        while behind := [node for node in self.nodes if not condition(node)]:
            if time.monotonic() > until or any(node.daemon.poll() is not None for node in behind):
                raise TimeoutError(f"{behind[0].name} does not train:\n{behind[0].last_lines()}")
            time.sleep(0.25)  # between two looks

"""Be one side of a contender of `exchange.py`: in a process of its own, average a vector with the other side's.

A side answers words over a pipe: `reset` restores its own values, `run` averages with the other side and gives the
seconds that took here, `error` gives the largest deviation from the true mean, relative to the largest value.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "HOST",
    "Setup",
    "Vector",
    "await_text",
    "fill",
    "mean_error",
    "own_values",
    "publish",
    "serve",
    "work_gloo",
    "work_plain",
]

HOST = "127.0.0.1"
PERIOD = 1_000_003
"""Values repeat after so many elements (a prime, so no chunk looks like another): checking needs no second vector."""

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What both sides of a contender are told."""

    rank: int
    elements: int
    tensors: int
    chunk_bytes: int
    window: int
    folder: str
    """A private folder through which the two sides may find each other."""


def own_values(rank: int) -> Vector:
    """Give one period of a side's initial values: float32 [PERIOD]."""
    return np.random.default_rng(rank).standard_normal(PERIOD, np.float32)


def fill(vector: Vector, period: Vector) -> None:
    for start in range(0, len(vector), len(period)):
        part = vector[start : start + len(period)]
        part[:] = period[: len(part)]


def mean_error(vector: Vector) -> float:
    """Compare with the mean of both sides' initial values; largest deviation / largest value."""
    mean = (own_values(0).astype(np.float64) + own_values(1).astype(np.float64)) / 2
    worst = 0.0
    for start in range(0, len(vector), PERIOD):
        part = vector[start : start + PERIOD]
        worst = max(worst, float(np.abs(part - mean[: len(part)]).max()))
    return worst / float(np.abs(mean).max())


class Side(ABC):
    """A side that blocks while it runs."""

    def __init__(self, setup: Setup) -> None:
        self.vector: Vector = np.empty(setup.elements, np.float32)
        self._own = own_values(setup.rank)

    def reset(self) -> None:
        fill(self.vector, self._own)

    @abstractmethod
    def run(self) -> float:
        """Wait for the other side, average with it; give the seconds that took."""

    def error(self) -> float:
        return mean_error(self.vector)


class Plain(Side):
    """The least that Python can do: a thread sends, the main thread receives, then PyTorch averages."""

    def __init__(self, setup: Setup) -> None:
        import torch

        super().__init__(setup)
        path = os.path.join(setup.folder, "plain.port")
        if setup.rank == 0:
            with socket.create_server((HOST, 0)) as server:
                publish(path, str(server.getsockname()[1]))
                self._socket, _ = server.accept()
        else:
            self._socket = socket.create_connection((HOST, int(await_text(path))))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._theirs: Vector = np.empty_like(self.vector)
        self._mine, self._other = torch.from_numpy(self.vector), torch.from_numpy(self._theirs)

    def run(self) -> float:
        self._socket.sendall(b"!")
        self._socket.recv(1)
        started = time.perf_counter()
        sender = threading.Thread(target=self._socket.sendall, args=(self.vector.data.cast("B"),))
        sender.start()
        left = self._theirs.data.cast("B")
        while left:
            received = self._socket.recv_into(left)
            assert received, "the other side is gone"
            left = left[received:]
        sender.join()
        self._mine.add_(self._other).mul_(0.5)
        return time.perf_counter() - started


class Gloo(Side):
    """What a PyTorch user would do: `all_reduce` over gloo, then halve. Threads as PyTorch chooses them."""

    def __init__(self, setup: Setup) -> None:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        import torch
        from torch import distributed

        super().__init__(setup)
        self._distributed: Any = distributed
        store = f"file://{setup.folder}/gloo.store"
        distributed.init_process_group("gloo", init_method=store, rank=setup.rank, world_size=2)
        self._tensor = torch.from_numpy(self.vector)

    def run(self) -> float:
        self._distributed.barrier()
        started = time.perf_counter()
        self._distributed.all_reduce(self._tensor)
        self._tensor.div_(2)
        return time.perf_counter() - started


def publish(path: str, text: str) -> None:
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def await_text(path: str, timeout_s: float = 30.0) -> str:
    """Read a file that the other side publishes once it is ready."""
    until = time.monotonic() + timeout_s
    while not os.path.exists(path):
        if time.monotonic() > until:
            raise TimeoutError(f"the other side did not write {path} in {timeout_s:g} s")
        time.sleep(0.01)  # between two looks: a file tells nobody that it is there
    with open(path) as file:
        return file.read()


def work_plain(setup: Setup, commands: Connection) -> None:
    answer(Plain(setup), commands)


def work_gloo(setup: Setup, commands: Connection) -> None:
    answer(Gloo(setup), commands)


def answer(side: Side, commands: Connection) -> None:
    """Serve one side's words until the pipe closes."""
    commands.send("ready")
    words = {"reset": side.reset, "run": side.run, "error": side.error}
    try:
        while True:
            name, _ = commands.recv()
            commands.send(words[name]())
    except EOFError:
        return


async def serve(words: dict[str, Any], commands: Connection) -> None:
    """The same inside an event loop, for words that are coroutine functions taking one argument."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(commands.fileno(), readable.set)
    commands.send("ready")
    try:
        while True:
            await readable.wait()
            readable.clear()
            while commands.poll():
                name, argument = commands.recv()
                commands.send(await words[name](argument))
    except EOFError:
        return
    finally:
        loop.remove_reader(commands.fileno())

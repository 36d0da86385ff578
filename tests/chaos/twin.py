"""Hold nodes in memory: the real `Node`, engine and membership on the in-memory network, in virtual time.

Only the process around a node is replaced: its trainer is a task that steps towards a known optimum, its kill is the
end of its tasks in mid-air, its address a name. Whatever blocks runs at once instead of in a thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.boot import BootFile
from adpsgd_node.daemon.drain import Drain
from adpsgd_node.daemon.node import Node
from adpsgd_node.daemon.settings import (
    CheckpointConfig,
    ExchangeConfig,
    MembershipPreset,
    NetworkConfig,
    NodeConfig,
    TargetConfig,
)
from adpsgd_node.daemon.stop import Stop
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.errors import AdpsgdError
from adpsgd_node.ids import Address, NodeId
from adpsgd_node.net.memory import MemoryNetwork
from adpsgd_node.plane import Fold, Plane, TrainerState
from adpsgd_node.plane.header import Command
from adpsgd_node.telemetry.metrics import Metrics
from adpsgd_node.wire.trainer import Agreed, Attach
from chaos.recorder import Recorder
from support.virtual_clock import VirtualClockLoop

__all__ = ["Twin", "TwinLoop", "TwinWorld"]

ELEMENTS = 8192
CHUNK_BYTES = 4096
BATCH = 32
STEP_S = 0.2
RATE = 0.05
NOISE = 0.1
RESTART_S = 1.0
"""From a trainer's end to the start of the next."""
DRAIN_S = 10.0
SPEC = TensorSpec("weight", (ELEMENTS,), "float32", Segment.PARAMETERS)


class TwinLoop(VirtualClockLoop):
    """A loop in virtual time in which nothing runs beside it: work for threads is done at once."""

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


class TwinLink:
    """What a node holds of its attached trainer."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.agreed: asyncio.Future[Agreed] = asyncio.get_running_loop().create_future()

    async def send(self, frame: object) -> None:
        if isinstance(frame, Agreed) and not self.agreed.done():
            self.agreed.set_result(frame)

    async def failed(self, error: AdpsgdError) -> None:
        if not self.agreed.done():
            self.agreed.set_exception(error)


@dataclass
class TwinWorld:
    """What all nodes of one test share."""

    network: MemoryNetwork
    folder: Path
    target_samples: int
    recorders: dict[NodeId, Recorder] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What failed inside nodes."""
    optimum: NDArray[np.float32] = field(
        default_factory=lambda: np.random.default_rng(0).standard_normal(ELEMENTS).astype(np.float32)
    )

    def config(self, name: str, seeds: list[Address], folder: Path) -> NodeConfig:
        return NodeConfig(
            name=name,
            run="twin",
            output=folder,
            network=NetworkConfig(seeds=tuple(seeds), membership=MembershipPreset.LOCAL, join_timeout_s=0),
            exchange=ExchangeConfig(chunk_bytes=CHUNK_BYTES, window=2, exchanges_per_step=0.5),
            checkpoint=CheckpointConfig(checkpoint_interval_s=0, cold_start_timeout_s=5),
            target=TargetConfig(samples=self.target_samples, tolerance=1e-3),
        )


class Twin:
    """One life of a node."""

    def __init__(self, world: TwinWorld, name: str, address: Address) -> None:
        self.name = name
        self.address = address
        self.alive = True
        self.stopped = asyncio.Event()
        self.stopped.set()  # clear while its trainer stands still
        self.node: Node
        self._world = world
        self._tasks = Tasks(lambda task, error: world.faults.append(f"{name}: {task}: {error!r}"))
        self._trainer: asyncio.Task[None] | None = None
        self._rng = np.random.default_rng()

    @classmethod
    async def start(
        cls, world: TwinWorld, name: str, address: Address, seeds: list[Address], boots: BootFile | None = None
    ) -> Twin:
        """Begin a life. boots: where its boot number comes from; default: its folder and the clock."""
        twin = cls(world, name, address)
        folder = world.folder / name
        folder.mkdir(exist_ok=True)
        transport = world.network.transport(address)
        config = world.config(name, [seed for seed in seeds if seed != address], folder)
        twin.node = Node(config, boots or BootFile(folder), address, transport, Metrics(version="twin"), twin._tasks)
        node = twin.node
        unary = {method: lambda data, method=method: node.unary()[method](data) for method in node.unary()}
        streams = {method: lambda stream, method=method: node.streams()[method](stream) for method in node.streams()}
        await transport.serve(unary, streams)
        node.checkpointing.open(asyncio.get_running_loop().time())
        node.membership.start()
        twin._tasks.start("checkpoint now and then", node.checkpointing.run())
        twin.start_trainer()
        return twin

    @property
    def identity(self) -> NodeId:
        return self.node.identity

    @property
    def training(self) -> bool:
        return self.alive and self.node.phase is Phase.TRAINING and self.node.link is not None

    def live_view(self) -> frozenset[NodeId]:
        """Return which lives this node holds alive, itself included."""
        members: list[Member] = list(self.node.membership.swim.members())
        return frozenset(member.id for member in members if member.state is MemberState.ALIVE)

    def beliefs(self) -> str:
        return ", ".join(sorted(str(member) for member in self.node.membership.swim.members()))

    # Trainer

    def start_trainer(self) -> None:
        self._trainer = asyncio.create_task(self._train(), name=f"trainer of {self.name}")

    async def kill_trainer(self) -> None:
        """End the trainer where it is, and start another as the supervisor does."""
        self._end_trainer()
        await asyncio.sleep(RESTART_S)
        if self.alive:
            self.start_trainer()

    def _end_trainer(self) -> None:
        if self._trainer is not None and not self._trainer.done():
            self._trainer.cancel()
        self._trainer = None
        self._lose_link()

    def _lose_link(self) -> None:
        link, host = self.node.link, self.node.link_host()
        if link is not None:
            host.stepped()
            host.lost(link)

    async def _train(self) -> None:
        node, link = self.node, TwinLink()
        host = node.link_host()
        plane, attached = host.attach(Attach(pid=link.pid, tensors=(SPEC,), dataset_size=1000))
        node.link = link  # type: ignore[assignment]
        fold = Fold(plane)
        fold.recover()
        if not attached.resumed:
            plane.live[:] = 0
        if await host.prepare() is None:
            return
        plane.header.trainer_state = TrainerState.STEPPING
        while plane.header.command is not Command.STOP:
            await self.stopped.wait()
            fold.fold()
            self._step(plane)
            host.stepped()
            await asyncio.sleep(STEP_S)
        if node.leaving:
            self._lose_link()
            return
        plane.header.trainer_state = TrainerState.SETTLING
        host.settle()
        await link.agreed
        fold.fold(force=True)
        plane.header.trainer_state = TrainerState.FINISHED
        host.saved("model")

    def _step(self, plane: Plane) -> None:
        """Take one noisy gradient step towards the optimum."""
        header = plane.header
        noise = NOISE * self._rng.standard_normal(ELEMENTS).astype(np.float32)
        plane.live -= np.float32(RATE) * (plane.live - self._world.optimum + noise)
        header.loss = float(np.linalg.norm(plane.live - self._world.optimum))
        header.samples += BATCH
        header.step += 1
        header.state_saved = header.save_state  # it has no state of its own to write

    # Ends

    async def kill(self) -> None:
        """End it as SIGKILL does: nothing is said, nothing is sent any more."""
        self.alive = False
        self._world.network.crash(self.address)
        self._end_trainer()
        await self._stop_tasks()

    async def terminate(self) -> list[str]:
        """Leave as a daemon does on SIGTERM; returns what was left open."""
        node = self.node
        stop = Stop(DRAIN_S, notify=node.watch.notify, kill=lambda: None)
        stop.ask(0.0, "SIGTERM")
        drain = Drain(node, stop, self._stop_stepping)
        await drain.run()
        node.gossip.close()
        await node.engine.drain(0.0)
        await node.leave(1.0, stop.left_s())
        self.alive = False
        await self._stop_tasks()
        await self._world.network.node(self.address).close(grace_s=1.0)  # type: ignore[union-attr]
        return drain.open

    async def _stop_stepping(self, within_s: float) -> bool:
        self.node.training.command(Command.STOP)
        self.stopped.set()
        return await self.node.watch.until(lambda: self.node.link is None, within_s)

    async def _stop_tasks(self) -> None:
        self.node.gossip.close()
        self.node.membership.close()
        while len(self._tasks):  # a broken exchange starts its settling as it ends
            await self._tasks.cancel()
        self.node.checkpointing.close()

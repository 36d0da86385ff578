"""Workers and parameter servers of one run over a transport in memory, with trainers that step when told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.push_pull import PushPull, Workplace
from adpsgd_node.daemon.server import ParameterServer, refuse_updates
from adpsgd_node.daemon.server_line import LineOffice
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.errors import AdpsgdError
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.net.memory import MemoryNetwork
from adpsgd_node.net.transport import StreamMethod, Transport
from adpsgd_node.plane import Fold, Layout, Plane
from adpsgd_node.telemetry.metrics import Metrics
from support.cutting_transport import CuttingTransport

__all__ = ["ELEMENTS", "Shop", "Worker"]

RUN = RunId("test")
ELEMENTS = 96
CHUNK_BYTES = 128
"""32 elements in a chunk: 3 of parameters, and one of buffers."""
WAIT_S = 20.0


@dataclass
class Worker:
    """One node."""

    id: NodeId
    plane: Plane
    fold: Fold
    push_pull: PushPull
    server: ParameterServer | None
    metrics: Metrics
    refusals: list[AdpsgdError]
    done: asyncio.Event
    step: int = 0

    async def train(self, move: npt.NDArray[np.float32]) -> None:
        """Add a move to the parameters, as an optimizer's step does, push it, and fold what is pulled."""
        self.plane.live[: len(move)] += move
        await self.pushed()

    async def pushed(self) -> None:
        self.step += 1
        self.plane.header.step = self.step
        self.done.clear()
        self.push_pull.stepped(self.step)
        async with asyncio.timeout(WAIT_S):
            await self.done.wait()
        self.fold.fold(force=True)


class Shop:
    """The nodes of one test; those named in `servers` serve."""

    def __init__(
        self, *servers: str, workers: int = 1, buffers: int = 0, codec: CodecName = CodecName.FP32, cuts: float = 0.0
    ) -> None:
        """`workers`: the number the servers divide by; `cuts`: the part of all streams that break early on."""
        self.network = MemoryNetwork(0)
        self.nodes: dict[str, Worker] = {}
        self.members: dict[str, Member] = {}
        self.faults: list[str] = []
        self.transports: list[CuttingTransport] = []
        self.tasks = Tasks(lambda name, error: self.faults.append(f"{name}: {error!r}"))
        self.watch = Watch()
        self._servers = servers
        self._workers = workers
        self._codec = codec
        self._cuts = cuts
        specs = [TensorSpec("weight", (ELEMENTS,), "float32", Segment.PARAMETERS)]
        if buffers:
            specs.append(TensorSpec("mean", (buffers,), "float32", Segment.BUFFERS))
        self.layout = Layout.build(specs, CHUNK_BYTES)

    @property
    def parameters(self) -> npt.NDArray[np.float32]:
        """What the servers have now: float32 [elements]."""
        parts: dict[int, npt.NDArray[np.float32]] = {}
        for node in self.nodes.values():
            if node.server is not None:
                parts |= node.server._parameters
        return np.concatenate([parts[index] for index in sorted(parts)])

    async def add(self, name: str, start: float = 1.0, servers: tuple[str, ...] | None = None, boot: int = 1) -> Worker:
        """Start a node whose parameters are all `start`."""
        identity, address = NodeId(name, boot), Address(f"{name}-{boot}:1")
        named = self._servers if servers is None else servers
        transport = CuttingTransport(
            self.network.transport(address), random.Random(name), probability=self._cuts, span=20
        )
        self.transports.append(transport)
        metrics, done, refusals = Metrics(version="test"), asyncio.Event(), list[AdpsgdError]()
        server = (
            ParameterServer(identity, RUN, named, lambda: self._workers, self._known, metrics)
            if name in named
            else None
        )
        await transport.serve({}, {StreamMethod.UPDATE: server.serve if server else refuse_updates})
        plane = Plane.create(self.layout)

        def pulled(step: int) -> None:
            plane.header.mixed = step
            done.set()

        push_pull = PushPull(self._workplace(identity, named, server, transport, metrics, pulled, refusals))
        plane.live[:] = np.float32(start)
        push_pull.begin(plane)
        worker = Worker(identity, plane, Fold(plane), push_pull, server, metrics, refusals, done)
        self.nodes[name] = worker
        self.members[name] = Member(identity, address, 0, MemberState.ALIVE, Phase.TRAINING)
        return worker

    def _known(self, node: NodeId) -> bool:
        return any(member.id == node for member in self.members.values())

    def lose(self, name: str) -> None:
        """Have everybody hold a node dead."""
        self.network.crash(self.members.pop(name).address)
        self.watch.notify()

    async def close(self) -> None:
        """Stop everything; raises what failed in the background."""
        for node in self.nodes.values():
            node.push_pull.close()
        await self.tasks.cancel()
        for transport in self.transports:
            await transport.close(grace_s=0.0)
        assert not self.faults, self.faults

    def _workplace(
        self,
        identity: NodeId,
        servers: tuple[str, ...],
        server: ParameterServer | None,
        transport: Transport,
        metrics: Metrics,
        pulled: Callable[[int], None],
        refusals: list[AdpsgdError],
    ) -> Workplace:
        office = LineOffice(
            identity=identity,
            run_id=RUN,
            servers=servers,
            codec=self._codec,
            window=2,
            transport=transport,
            member_named=self.members.get,
            metrics=metrics,
            rng=random.Random(0),
        )

        def refused(error: AdpsgdError) -> None:
            refusals.append(error)
            pulled(0)

        return Workplace(
            identity=identity,
            servers=servers,
            server=server,
            live=lambda: list(self.members.values()),
            office=office,
            done=pulled,
            refused=refused,
            watch=self.watch,
            tasks=self.tasks,
        )

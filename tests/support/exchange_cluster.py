"""Several exchange engines with real planes and stepping trainers, over any transport, and their mass ledger.

The ledger is what the sum of all nodes' parameters must be: the initial values plus every local update. Nothing that
happens between nodes may change it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.exchange.journal import ExchangeKey
from adpsgd_node.core.exchange.outcome import Outcome, Role, SettleEnd
from adpsgd_node.core.exchange.quarantine import Sentence
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.exchange_io import ExchangeEngine, Surroundings
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.settings import ExchangeConfig
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.net.transport import Method, StreamMethod, Transport
from adpsgd_node.plane import Fold, Layout, Plane
from support.exact_view import exact_view

__all__ = ["ClusterNode", "ExchangeCluster"]

Vector = NDArray[np.float64]


@dataclass
class ClusterNode:
    """One node: engine, plane, and a trainer that steps in the event loop."""

    id: NodeId
    address: Address
    transport: Transport
    engine: ExchangeEngine
    plane: Plane
    fold: Fold
    ledger: Vector
    reports: list[ExchangeReport] = field(default_factory=list)
    settled: Counter[SettleEnd] = field(default_factory=Counter)
    poisoned: list[int] = field(default_factory=list)
    kept: dict[tuple[Role, ExchangeKey], int] = field(default_factory=dict)
    """Chunks of each exchange that stay applied here, as told once that was certain."""
    sentences: list[Sentence] = field(default_factory=list)

    def view(self) -> Vector:
        """Return the node's current parameters: float64 [elements]."""
        return exact_view(self.plane)

    def step(self, rng: np.random.Generator, scale: float) -> None:
        """Fold, then apply one local update, as a trainer does."""
        self.fold.fold()
        before = self.plane.live.astype(np.float64)
        self.plane.live += (scale * rng.standard_normal(len(self.plane.live))).astype(np.float32)
        self.ledger += self.plane.live.astype(np.float64) - before
        self.plane.header.step += 1

    def swell(self, factor: float) -> None:
        """Multiply the parameters, as a broken trainer may; the ledger knows of it."""
        self.fold.fold()
        before = self.plane.live.astype(np.float64)
        self.plane.live *= np.float32(factor)
        self.ledger += self.plane.live.astype(np.float64) - before
        self.plane.header.step += 1


class ExchangeCluster:
    """All nodes of one test; `dead` and `rebooted` names are not found any more."""

    def __init__(self, *, elements: int, chunk_bytes: int, config: ExchangeConfig, seed: int) -> None:
        self.nodes: list[ClusterNode] = []
        self.faults: list[tuple[str, BaseException]] = []
        self.gone: set[NodeId] = set()
        self.tasks = Tasks(lambda name, error: self.faults.append((name, error)))
        self.rng = random.Random(seed)
        self._values = np.random.default_rng(seed)
        self._config = config
        spec = TensorSpec("weight", (elements,), "float32", Segment.PARAMETERS)
        self._layout = Layout.build([spec], chunk_bytes)

    async def add(self, name: str, transport: Transport, config: ExchangeConfig | None = None) -> ClusterNode:
        """Start one node with random initial parameters. config: its own, in place of the cluster's."""
        identity = NodeId(name, 1)
        plane = Plane.create(self._layout)
        plane.live[:] = self._values.standard_normal(len(plane.live)).astype(np.float32)
        reports: list[ExchangeReport] = []
        settled: Counter[SettleEnd] = Counter()
        poisoned: list[int] = []
        kept: dict[tuple[Role, ExchangeKey], int] = {}
        sentences: list[Sentence] = []

        def keep(role: Role, key: ExchangeKey, chunks: int) -> None:
            assert (role, key) not in kept, f"{identity} was told twice of {key}"
            kept[role, key] = chunks

        around = Surroundings(
            address_of=self.address_of,
            progress=tuple,
            report=reports.append,
            poisoned=poisoned.append,
            settled=lambda end: settled.update([end]),
            kept=keep,
            sentenced=sentences.append,
        )
        engine = ExchangeEngine(identity, RunId("test"), transport, config or self._config, around, self.tasks)
        engine.use(plane)
        engine.ready = True
        address = await transport.serve({Method.SETTLE: engine.settle}, {StreamMethod.CONVERSE: engine.converse})
        ledger = plane.live.astype(np.float64)
        node = ClusterNode(
            identity,
            address,
            transport,
            engine,
            plane,
            Fold(plane),
            ledger,
            reports,
            settled,
            poisoned,
            kept,
            sentences,
        )
        self.nodes.append(node)
        return node

    def address_of(self, identity: NodeId) -> Address | None:
        return next((n.address for n in self.nodes if n.id == identity and identity not in self.gone), None)

    async def run(self, exchanges: int, *, codec: CodecName, step_every: int = 3, pause_s: float = 0.001) -> None:
        """Have every node initiate `exchanges`, stepping in between."""
        async with asyncio.TaskGroup() as group:
            for node in self.nodes:
                group.create_task(self._drive(node, exchanges, codec, step_every, pause_s), name=f"drive {node.id}")

    async def _drive(
        self, node: ClusterNode, exchanges: int, codec: CodecName, step_every: int, pause_s: float
    ) -> None:
        for number in range(exchanges):
            peers = [p for p in self.nodes if p is not node and node.engine.may_exchange_with(p.id)]
            if peers:
                peer = self.rng.choice(peers)
                await node.engine.initiate(peer.id, peer.address, codec)
            if step_every and number % step_every == 0:
                node.step(self._values, 0.01)
            await asyncio.sleep(pause_s * self.rng.random())

    async def settle(self, timeout_s: float) -> bool:
        """Wait until nothing runs and nothing is unsettled anywhere."""
        done = await asyncio.gather(*(node.engine.drain(timeout_s) for node in self.nodes))
        return all(done)

    def drift(self, nodes: Sequence[ClusterNode] | None = None) -> float:
        """Return |sum of parameters - ledger| / |ledger| over `nodes`."""
        chosen = self.nodes if nodes is None else nodes
        total = np.sum([node.view() for node in chosen], axis=0)
        ledger = np.sum([node.ledger for node in chosen], axis=0)
        return float(np.linalg.norm(total - ledger) / np.linalg.norm(ledger))

    def outcomes(self) -> Counter[Outcome]:
        """Count how the exchanges ended, as their initiators saw it."""
        return Counter(r.outcome for n in self.nodes for r in n.reports if r.role.value == "initiator")

    def kept(self, role: Role) -> dict[ExchangeKey, int]:
        """Return the chunks of each exchange that its initiator, or its responder, has applied for good."""
        return {key: chunks for node in self.nodes for (side, key), chunks in node.kept.items() if side is role}

    async def close(self) -> None:
        await self.tasks.cancel()
        for node in self.nodes:
            await node.transport.close(grace_s=0.1)
            node.plane.close()
        assert not self.faults, self.faults

"""Nodes that look for their first parameters at the same time, each with answers that are a little old."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adpsgd_node.core.adoption import Offer
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.daemon.adopt import Adopter, Origin
from adpsgd_node.ids import Address, NodeId
from adpsgd_node.plane import Layout, Plane
from support.numpy_trainer import tensors

LONGEST_S = 0.05
RUNS = 300


@dataclass
class Cluster:
    """Nodes that know of each other, and a network whose answers take their time."""

    rng: random.Random
    nodes: dict[NodeId, Node] = field(default_factory=dict)

    async def travel(self) -> None:
        await asyncio.sleep(self.rng.choice([0.0, 0.0, self.rng.uniform(0.0, LONGEST_S)]))


@dataclass
class Node:
    """One of them: what a daemon does around its `Adopter`."""

    id: NodeId
    cluster: Cluster
    phase: Phase = Phase.IDLE
    has_model: bool = False
    asked_by: set[NodeId] = field(default_factory=set)

    def member(self) -> Member:
        return Member(self.id, Address(f"{self.id.name}:1"), 0, MemberState.ALIVE, self.phase)

    def askers(self) -> frozenset[NodeId]:
        askers, self.asked_by = frozenset(self.asked_by), set()
        return askers

    async def ask(self, members: Sequence[Member], _layout: Layout) -> tuple[list[Offer], list[NodeId]]:
        return list(await asyncio.gather(*(self._ask(member.id) for member in members))), []

    async def _ask(self, whom: NodeId) -> Offer:
        await self.cluster.travel()
        other = self.cluster.nodes[whom]
        other.asked_by.add(self.id)
        offer = Offer(whom, other.phase, other.has_model)
        await self.cluster.travel()
        return offer

    async def fetch(self, donors: Sequence[Member], _plane: Plane) -> NodeId:
        await self.cluster.travel()
        return donors[0].id

    async def run(self) -> Origin:
        """Have its script attach at some time, and find its first parameters."""
        await self.cluster.travel()
        self.phase = Phase.INITIALIZING
        adopter = Adopter(
            identity=self.id,
            outbound_only=False,
            peers=lambda: [node.member() for node in self.cluster.nodes.values() if node is not self],
            samples_elsewhere=lambda: 0,
            greet=lambda _: asyncio.sleep(0),
            enquiry=self,  # type: ignore[arg-type]
            fetcher=self,  # type: ignore[arg-type]
            restorer=NoCheckpoints(),  # type: ignore[arg-type]
            cold_start_timeout_s=30.0,
            rng=self.cluster.rng,
        )
        plane = Plane.create(Layout.build(tensors(4), 64))
        plane.live[:] = np.float32(0)
        origin = await adopter.adopt_or_found(plane)
        self.phase, self.has_model = Phase.TRAINING, True
        return origin


class NoCheckpoints:
    def newest(self, _schema: Any) -> None:
        return None


async def founders(seed: int) -> list[str]:
    rng = random.Random(seed)
    cluster = Cluster(rng)
    for name in "abcd"[: rng.randint(2, 4)]:
        cluster.nodes[NodeId(name, 1)] = Node(NodeId(name, 1), cluster)
    origins = await asyncio.gather(*(node.run() for node in cluster.nodes.values()))
    return [node.id.name for node, origin in zip(cluster.nodes.values(), origins, strict=True) if origin == Origin()]


async def test_one_node_founds_the_run_however_late_its_answers_and_scripts_come() -> None:
    found = await asyncio.gather(*(founders(seed) for seed in range(RUNS)))
    several = {seed: names for seed, names in enumerate(found) if len(names) != 1}
    assert not several

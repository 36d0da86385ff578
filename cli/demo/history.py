"""Remember what the nodes of a demo said, for the table, the result and the plot."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from adpsgd_cli.demo.cluster import Cluster, NodeProcess
from adpsgd_node.errors import AdpsgdError
from adpsgd_node.wire.admin import Status

__all__ = ["History", "Point", "poll"]

ASK_TIMEOUT_S = 2.0
MAX_POINTS = 20_000
"""Most points kept for one node; when they are many, every other one is dropped."""


@dataclass(frozen=True, slots=True)
class Point:
    """One node at one time."""

    elapsed_s: float
    step: int
    samples_total: int
    loss: float
    consensus_distance: float


class History:
    """The statuses of all nodes, in short over time and in full the last of each."""

    def __init__(self) -> None:
        self.points: dict[str, list[Point]] = {}
        self.latest: dict[str, Status] = {}

    def add(self, elapsed_s: float, status: Status) -> None:
        """Note what one node says now."""
        name = status.self_member.id.name
        self.latest[name] = status
        points = self.points.setdefault(name, [])
        points.append(Point(elapsed_s, status.step, status.samples_total, status.loss, status.consensus_distance))
        if len(points) > MAX_POINTS:
            del points[1::2]

    @property
    def samples_total(self) -> int:
        """Samples of the whole run, as the best informed node knows them."""
        return max((status.samples_total for status in self.latest.values()), default=0)

    @property
    def samples_target(self) -> int:
        return max((status.samples_target for status in self.latest.values()), default=0)

    @property
    def steps_total(self) -> int:
        return max((status.steps_total for status in self.latest.values()), default=0)

    @property
    def exchanges_total(self) -> int:
        """Exchanges of all nodes, each counted once, where it was initiated."""
        return sum(status.exchanges_initiated for status in self.latest.values())

    @property
    def fraction(self) -> float:
        """How much of the target is reached, 0 to 1; 0 while no node has told a target."""
        return min(1.0, self.samples_total / self.samples_target) if self.samples_target else 0.0


async def poll(cluster: Cluster, history: History, elapsed_s: float) -> None:
    """Ask every running node for its status; one that does not answer yet, or no more, is left out."""
    running = [node for node in cluster.nodes.values() if node.returncode is None]
    for status in await asyncio.gather(*(_ask(node) for node in running)):
        if status is not None:
            history.add(elapsed_s, status)


async def _ask(node: NodeProcess) -> Status | None:
    from adpsgd_node.daemon.admin import fetch_status  # late: imports gRPC

    if not node.socket.exists():
        return None  # still starting
    try:
        return await fetch_status(node.socket, ASK_TIMEOUT_S)
    except AdpsgdError:
        return None

"""Push what each step of this node's trainer made of its parameters, and pull what the servers have (A-PSGD).

The trainer steps by its own optimizer, momentum apart; the difference that makes is the push. It waits after the step
until all servers have answered, folds what came, and goes on with the parameters they have.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adpsgd_node.core.algorithms.a_psgd import shards
from adpsgd_node.core.membership.member import HOLDING, Member, Phase
from adpsgd_node.daemon.server import NotFiniteError, ParameterServer
from adpsgd_node.daemon.server_line import Line, LineOffice, Reserve
from adpsgd_node.daemon.settings import AlgorithmName
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.errors import AdpsgdError, PeerLostError
from adpsgd_node.ids import NodeId
from adpsgd_node.net.transport import Transport
from adpsgd_node.plane import Command, Plane
from adpsgd_node.telemetry.log import EventLog

if TYPE_CHECKING:
    from adpsgd_node.daemon.node import Node

__all__ = ["PushPull", "Workplace", "parts_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """What pushing asks of the rest of the node."""

    identity: NodeId
    servers: tuple[str, ...]
    server: ParameterServer | None
    """This node's own, if it is one of the servers."""
    live: Callable[[], Sequence[Member]]
    office: LineOffice
    done: Callable[[int], None]
    """Told when all that a step pushed is pulled: the trainer may go on."""
    refused: Callable[[AdpsgdError], None]
    """Told why a push can never be made: `NotFiniteError`, or a server that takes none of this node's."""
    watch: Watch
    """Notified when membership has changed."""
    tasks: Tasks


def parts_of(node: Node, transport: Transport, rng: random.Random) -> tuple[ParameterServer | None, PushPull | None]:
    """Make what A-PSGD needs of a node: its server, if it is one, and its worker; with another algorithm neither."""
    config, identity, membership = node.config, node.identity, node.membership
    if config.algorithm is not AlgorithmName.A_PSGD:
        return None, None

    def workers() -> int:
        return max(1, sum(member.phase is Phase.TRAINING for member in membership.swim.live()))

    def known(worker: NodeId) -> bool:
        return membership.address_of(worker) is not None

    def refused(error: AdpsgdError) -> None:
        if isinstance(error, NotFiniteError):
            node.poison(str(error))
        else:
            node.fail(error)

    server = None
    if config.name in config.servers:
        server = ParameterServer(identity, node.run_id, config.servers, workers, known, node.metrics)
    office = LineOffice(
        identity=identity,
        run_id=node.run_id,
        servers=config.servers,
        codec=config.exchange.codec,
        window=config.exchange.window,
        transport=transport,
        member_named=lambda name: next((member for member in membership.peers() if member.name == name), None),
        metrics=node.metrics,
        rng=rng,
    )
    around = Workplace(
        identity=identity,
        servers=config.servers,
        server=server,
        live=membership.swim.live,
        office=office,
        done=node.mixed,
        refused=refused,
        watch=node.watch,
        tasks=node.tasks,
    )
    return server, PushPull(around)


class PushPull:
    """The worker's side of one node."""

    def __init__(self, around: Workplace) -> None:
        self._around = around
        self._plane: Plane | None = None
        self._reserve: Reserve | None = None
        self._lines = {name: Line(name, around.office) for name in around.servers}
        self._step = 0
        self._number = 0
        self._running: asyncio.Task[None] | None = None
        self._log = EventLog("push")

    def begin(self, plane: Plane) -> None:
        """Note what the parameters are before a trainer's first step; only then may it go.

        What an earlier life of it has pushed and not pulled is still to be.
        """
        if self._plane is plane and plane.header.mixed < plane.header.step:
            return
        self.stop()
        self._plane, self._reserve = plane, Reserve(plane)
        self._step = 0
        if self._around.server is not None:
            self._around.server.found(plane)

    def stepped(self, step: int) -> None:
        """Push what a step made; the trainer waits. A step whose push was broken off before is pushed again."""
        if self._running is not None and not self._running.done():
            return
        if step != self._step:
            self._step, self._number = step, self._number + 1
            for line in self._lines.values():
                line.pending = None
        self._running = self._around.tasks.start(f"push of step {step}", self._push(step))

    def stop(self) -> None:
        """Break off what is under way: the trainer steps no more, or has gone."""
        if self._running is not None:
            self._running.cancel()
            self._running = None

    def close(self) -> None:
        """Push nothing any more."""
        self.stop()
        for line in self._lines.values():
            line.close()

    async def assembled(self, timeout_s: float) -> bool:
        """Wait until all servers are here and have what they serve; False when time ran out.

        Only before this node's first push: after it `vain` tells when one is lost.
        """
        if self._plane is not None:
            return True

        def here() -> bool:
            holding = {member.name for member in self._around.live() if member.phase in HOLDING}
            return holding.issuperset(self._around.servers)

        if not here():
            self._log.info("waiting for the parameter servers", servers=",".join(self._around.servers))
        return await self._around.watch.until(here, timeout_s)

    async def vain(self, plane: Plane) -> AdpsgdError:
        """Return, once it is so, why the trainer waits in vain: a server that this node has pulled from is lost.

        When the run has reached its target the servers may go, and the last push with them.
        """
        header = plane.header
        lost: list[NodeId] = []

        def gone() -> bool:
            if header.mixed >= header.step:
                return False
            live = {member.id for member in self._around.live()} | {self._around.identity}
            known = (line.server for line in self._lines.values() if line.server is not None)
            lost[:] = [server for server in known if server not in live]
            if lost and header.command is Command.STOP:
                self.stop()
                self._around.done(header.step)
                return False
            return bool(lost)

        await self._around.watch.until(gone)
        names = ", ".join(node.name for node in lost)
        return PeerLostError(
            f"{names} served parameters of this run and is lost, and what it held with it: start all nodes again, "
            "they go on from their checkpoints; or use ad-psgd, which can lose any node"
        )

    async def _push(self, step: int) -> None:
        plane, reserve = self._plane, self._reserve
        assert plane is not None
        assert reserve is not None
        parts = shards(len(plane.layout.chunks), self._around.servers)
        try:
            async with asyncio.TaskGroup() as group:
                for name, shard in parts.items():
                    if shard and name == self._around.identity.name:
                        group.create_task(self._apply_here(plane, reserve, shard), name=f"push {step} here")
                    elif shard:
                        line = self._lines[name]
                        work = line.push(plane, reserve, shard, self._number)
                        group.create_task(work, name=f"push {step} to {name}")
        except* AdpsgdError as errors:
            first = errors.exceptions[0]
            assert isinstance(first, AdpsgdError)
            self._log.error("cannot push", why=first)
            self._around.refused(first)
        else:
            self._around.done(step)

    async def _apply_here(self, plane: Plane, reserve: Reserve, shard: range) -> None:
        """Push to this node's own server, without the way over the network."""
        server, line = self._around.server, self._lines[self._around.identity.name]
        assert server is not None
        push = line.next_push(plane.header, self._number, len(shard))
        for index in shard:
            reserve.take(index, server.apply(self._around.identity, push, index, reserve.difference(index)))
            await asyncio.sleep(0)  # let the loop turn between two chunks
        line.version = server.complete(self._around.identity, push).version

"""Bring the nodes together that an algorithm cannot go on without, and notice when one of them is missing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adpsgd_node.address import split_address
from adpsgd_node.core.algorithms.world import Assembly, World, absent, ready
from adpsgd_node.core.membership.member import Member
from adpsgd_node.core.membership.packet import Refusal, RefusalReason
from adpsgd_node.errors import (
    AdpsgdError,
    ConfigError,
    JoinError,
    PeerLostError,
    RunMismatchError,
    TrainerError,
    TransportError,
    WireError,
)
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId
from adpsgd_node.net.transport import Method, Transport
from adpsgd_node.plane.header import Header, TrainerState
from adpsgd_node.telemetry.log import EventLog, OncePer
from adpsgd_node.wire.world import (
    NOWHERE,
    WorldRequest,
    WorldResponse,
    decode_world_request,
    decode_world_response,
    encode_world_request,
    encode_world_response,
)

__all__ = ["Place", "Rendezvous", "trainer_address"]

ASK_TIMEOUT_S = 3.0
FIRST_PAUSE_S = 0.05
LARGEST_PAUSE_S = 1.0
"""Pauses before the others are looked for again."""
LOG_AGAIN_S = 30.0
LOOK_EVERY_S = 0.25
"""How often a trainer that waits is looked after."""
STOPPED_LIMIT_S = 5.0
"""A trainer that has waited for so long while another has ended its training waits in vain."""
BEGIN_LIMIT_S = 60.0
"""How long join() may take on, when all are there; waits for the others do not count."""
DETACHED_LIMIT_S = 10.0
"""How long a script may live on that trains no more and has not finished: the others wait for it."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a trainer needs to find the others."""

    world: World
    rank: int
    rendezvous: Address
    """Where the trainer of rank 0 listens."""


class Rendezvous:
    """One node's part in its world. `size`: nodes of it; 0: the algorithm has none, and this only says so."""

    def __init__(
        self, identity: NodeId, run_id: RunId, size: int, transport: Transport, live: Callable[[], Sequence[Member]]
    ) -> None:
        self.size = size
        self._identity = identity
        self._run_id = run_id
        self._transport = transport
        self._live = live
        self._assembly = Assembly(identity, size)
        self._address = NOWHERE
        """Where the trainer of rank 0 listens, once the world stands."""
        self._rng = random.Random(f"{run_id}/{identity}")
        self._log = EventLog("rendezvous")
        self._once = OncePer(LOG_AGAIN_S)

    async def answer(self, data: bytes) -> bytes:
        """Serve `Model/World`: say who takes part, if that is known here."""
        request = decode_world_request(data)
        refusal = self._refusal(request)
        world = None
        if refusal is None and request.size == self.size:
            self._assembly.call(request.source)
            world = self._assembly.world
        response = WorldResponse(
            source=self._identity,
            size=self.size,
            members=world.members if world and self._address else (),
            rendezvous=self._address if world else NOWHERE,
            refusal=refusal,
        )
        return encode_world_response(response)

    async def meet(self, own: Address) -> Place:
        """Wait until the world stands. `own`: where this node's trainer listens, in case its rank is 0.

        Raises `JoinError` when there is no place in it, `ConfigError` when the nodes were not told the same.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            here = ready(self._live())
            if (world := self._assembly.decide(here)) is not None:
                self._address = self._address or own
                rank = world.rank_of(self._identity)
                assert rank is not None, "a node enters no world without a place"
                self._log.info("all nodes of the world are here", world=world, rank=rank)
                return Place(world, rank, self._address)
            if (other := self._assembly.whom_to_ask(here)) is not None:
                await self._ask(next(member for member in self._live() if member.id == other))
            if self._assembly.world is None:
                self._tell(here)
                await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))  # drawn: not all ask in step
                pause_s = min(LARGEST_PAUSE_S, 2 * pause_s)

    async def vain(self, header: Header) -> AdpsgdError:
        """Return, once it is so, why the attached trainer waits for the others in vain, or they for it."""
        loop = asyncio.get_running_loop()
        stuck = _Since()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)  # poll: the header is shared memory, which wakes nobody
            now, state = loop.time(), header.trainer_state
            limit_s = DETACHED_LIMIT_S if header.step else BEGIN_LIMIT_S
            if header.waiting:
                lost, stopped = self._absent()
                if lost:
                    return _lost(lost)
                if stopped and stuck.lasts(("waiting", header.step), now) > STOPPED_LIMIT_S:
                    return _uneven(stopped, header.step)
            elif state is TrainerState.NONE:
                if stuck.lasts("detached", now) > limit_s:
                    return TrainerError(
                        "the script trains no more and has not called finish(): with allreduce the others wait for it"
                    )
            else:
                stuck.lasts("", now)

    def _absent(self) -> tuple[list[NodeId], list[NodeId]]:
        world = self._assembly.world
        return absent(world, self._live()) if world is not None else ([], [])

    async def _ask(self, member: Member) -> None:
        request = WorldRequest(protocol=PROTOCOL_VERSION, run_id=self._run_id, source=self._identity, size=self.size)
        try:
            data = await self._transport.call(
                member.address, Method.WORLD, encode_world_request(request), timeout_s=ASK_TIMEOUT_S
            )
            response = decode_world_response(data)
        except (TransportError, WireError) as error:
            self._log.debug("could not ask for the world", member=member, cause=error)
            return  # membership finds out whether it is dead
        if response.source == member.id:  # else another node has its address now
            self._take(response)

    def _take(self, response: WorldResponse) -> None:
        if response.refusal is not None:
            raise RunMismatchError(f"{response.source.name} refuses this node: {response.refusal.detail}")
        if response.size != self.size:
            theirs = f"--world-size {response.size}" if response.size else "another --algorithm"
            raise ConfigError(
                f"{response.source.name} runs with {theirs}, this node with --algorithm allreduce --world-size "
                f"{self.size}: give all nodes the same"
            )
        if not response.members:
            return
        world = World(response.members)
        if not self._assembly.enter(world):
            raise JoinError(
                f"the run has all its {self.size} nodes ({world}), and with allreduce nobody can join later: start all "
                "nodes again with a larger --world-size, or use ad-psgd, which takes nodes in at any time"
            )
        self._address = response.rendezvous

    def _refusal(self, request: WorldRequest) -> Refusal | None:
        if request.protocol != PROTOCOL_VERSION:
            detail = f"protocol {PROTOCOL_VERSION} expected, {request.protocol} came"
            return Refusal(RefusalReason.PROTOCOL, detail)
        if request.run_id != self._run_id:
            return Refusal(RefusalReason.RUN, f"run {self._run_id!r} expected, {request.run_id!r} came")
        return None

    def _tell(self, here: Sequence[NodeId]) -> None:
        if self._once.due("waiting", asyncio.get_running_loop().time()):
            names = ", ".join(sorted(node.name for node in here))
            self._log.info("waiting until all nodes of the world are ready", world_size=self.size, ready=names)


class _Since:
    """Measure for how long something has been the same."""

    def __init__(self) -> None:
        self._what: object = ""
        self._at = 0.0

    def lasts(self, what: object, now: float) -> float:
        """Return for how many seconds `what` has been so."""
        if what != self._what:
            self._what, self._at = what, now
        return now - self._at


def trainer_address(advertised: Address, port: int) -> Address:
    """Return where the trainer of a node is reached: the host of the node itself, and the trainer's own port."""
    host, _ = split_address(advertised)
    return Address(f"{f'[{host}]' if ':' in host else host}:{port}")


def _lost(nodes: Sequence[NodeId]) -> PeerLostError:
    return PeerLostError(
        f"allreduce cannot go on without {_names(nodes)}: start all nodes again; with ad-psgd the others would have "
        "gone on"
    )


def _uneven(nodes: Sequence[NodeId], step: int) -> TrainerError:
    verb = "has" if len(nodes) == 1 else "have"
    return TrainerError(
        f"{_names(nodes)} {verb} ended the training while this node waits in its step {step + 1}: with allreduce all "
        "nodes must take the same number of steps, as they do with `while not node.should_stop`"
    )


def _names(nodes: Sequence[NodeId]) -> str:
    return ", ".join(node.name for node in nodes)

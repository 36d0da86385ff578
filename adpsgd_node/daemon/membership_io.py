"""Carry out what the membership machine asks: packets, joins, and the question who owns a name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from adpsgd_node.core.membership.config import membership_preset
from adpsgd_node.core.membership.effect import (
    AskToJoin,
    Effect,
    Joined,
    JoinRefused,
    MemberChanged,
    NameConflict,
    NameInUse,
    Refuted,
    Rejected,
    ResolveSeeds,
    SendPacket,
    Waiting,
)
from adpsgd_node.core.membership.event import Event, JoinAnswered, JoinFailed, Leave, PacketReceived, SeedsResolved
from adpsgd_node.core.membership.member import Member, MemberState
from adpsgd_node.core.membership.packet import Refusal, RefusalReason
from adpsgd_node.core.membership.roster import Identity
from adpsgd_node.core.membership.swim import Swim
from adpsgd_node.daemon.driver import Driver
from adpsgd_node.daemon.resolve import SeedResolver
from adpsgd_node.daemon.settings import NetworkConfig
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.errors import (
    AdpsgdError,
    NameInUseError,
    RunMismatchError,
    TransportError,
    UnreachableError,
    WireError,
)
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId
from adpsgd_node.net.transport import Method, Transport
from adpsgd_node.telemetry.log import EventLog, OncePer
from adpsgd_node.wire.membership import (
    decode_deliver_response,
    decode_join_request,
    decode_join_response,
    decode_packet,
    encode_deliver_response,
    encode_join_request,
    encode_join_response,
    encode_packet,
)

__all__ = ["MAX_PACKETS_UNDER_WAY", "MembershipHooks", "MembershipIo", "membership_of"]

MAX_PACKETS_UNDER_WAY = 256
"""Packets being sent at once; further ones are dropped, which the protocol is made for."""
PACKET_TIMEOUT_S = 2.0
JOIN_TIMEOUT_S = 4.0
LOG_AGAIN_S = 300.0
LOG_WAITING_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipHooks:
    """Who hears of what; each call returns at once."""

    changed: Callable[[Member, Member | None], None]
    joined: Callable[[], None]
    progressed: Callable[[], None]
    """The run's counters may have grown."""
    rejected: Callable[[RefusalReason], None]
    fatal: Callable[[AdpsgdError], None]
    """This node cannot be part of the run."""
    outnumbered: Callable[[Member], None]
    """An earlier life of this name is over, but its boot number is larger than that of this one."""


def membership_of(
    network: NetworkConfig,
    identity: NodeId,
    run_id: RunId,
    address: Address,
    resolver: SeedResolver,
    rng: random.Random,
) -> Swim:
    """Make the machine of a node that peers reach at `address`."""
    own = Identity(
        id=identity,
        address=address,
        run_id=run_id,
        protocol=PROTOCOL_VERSION,
        outbound_only=network.outbound_only,
    )
    preset = membership_preset(network.membership.name.lower())
    return Swim(own, preset, rng, seeds=resolver.plain, resolving=resolver.needed)


class MembershipIo:
    """The I/O of one node's membership."""

    def __init__(
        self,
        swim: Swim,
        transport: Transport,
        tasks: Tasks,
        hooks: MembershipHooks,
        join_timeout_s: float,
        resolver: SeedResolver | None = None,
    ) -> None:
        """`resolver` looks up the seeds that are names; None when there are none."""
        self.swim = swim
        self._resolver = resolver
        self._resolving = False
        self._transport = transport
        self._tasks = tasks
        self._hooks = hooks
        self._join_timeout_s = join_timeout_s
        self._driver: Driver[Event, Effect] = Driver(swim, self._execute)
        self._sending = 0
        self._told = Watch()
        self._checking: set[NodeId] = set()
        self._log = EventLog("membership")
        self._once = OncePer(LOG_AGAIN_S)
        self._waiting = OncePer(LOG_WAITING_S)
        self._given_up = False

    def start(self) -> None:
        """Begin to look for the run."""
        self._driver.carry_out(self.swim.start(self._now()))

    def post(self, event: Event) -> None:
        """Hand one event to the machine."""
        self._driver.post(event)

    def close(self) -> None:
        self._driver.close()
        if self._resolver is not None:
            self._resolver.close()

    def greet(self, address: Address) -> asyncio.Task[None]:
        """Ask a node of the run what it knows; it hears of this one thereby. Only after having joined.

        The task ends when all of it is taken in, or when there is no answer.
        """
        return self._tasks.start(f"greet {address}", self._ask(address))

    async def flush(self, timeout_s: float) -> bool:
        """Wait until the packets under way have been sent, such as the last ones; False when time ran out."""
        return await self._told.until(lambda: self._sending == 0, timeout_s)

    async def part(self, grace_s: float, limit_s: float) -> None:
        """Tell the members that this node leaves; those that nobody can dial hear it when they call next."""
        self.post(Leave())
        await self.flush(grace_s)
        if not await self._told.until(lambda: not self.swim.untold, min(limit_s, self.swim.farewell_s)):
            self._log.info("left without a call from some members that nobody can dial", members=self.swim.untold)

    def peers(self) -> list[Member]:
        """Return the live members but this node."""
        own = self.swim.self_member.id
        return [member for member in self.swim.live() if member.id != own]

    def address_of(self, node: NodeId) -> Address | None:
        """Return where a live member is; None for one that is dead, gone, or another boot."""
        return next((member.address for member in self.swim.live() if member.id == node), None)

    async def deliver(self, data: bytes) -> bytes:
        """Take one packet from a peer; a caller that nobody can dial is answered with what waits for it."""
        packet = decode_packet(data)
        self._driver.post(PacketReceived(packet))
        waiting = self.swim.collect(packet.source.id) if packet.source.outbound_only else ()
        self._told.notify()
        self._hooks.progressed()
        return encode_deliver_response(waiting)

    async def join(self, data: bytes) -> bytes:
        """Answer a node that wants to join, from what is known here."""
        request = decode_join_request(data)
        response, effects = self.swim.answer_join(request, self._now())
        self._driver.carry_out(effects)
        self._hooks.progressed()
        if response.refusal is not None and self.swim.self_member.live:  # one that is leaving refuses everybody
            self._turned_away(request.source, response.refusal)
        return encode_join_response(response)

    def _turned_away(self, source: Member, refusal: Refusal) -> None:
        self._hooks.rejected(refusal.reason)
        if self._once.due((source.name, refusal.reason), self._now()):
            self._log.warning("refused a node that wants to join", node=source, why=refusal)

    def _execute(self, effect: Effect) -> None:
        match effect:
            case SendPacket():
                self._send(effect)
            case AskToJoin(seed):
                self._tasks.start(f"join through {seed}", self._ask(seed))
            case MemberChanged(member, before):
                self._changed(member, before)
            case Joined(seed):
                self._log.info(
                    "joined the run" if seed else "begins the run: there is no other seed to ask",
                    through=seed or "-",
                    members=len(self.swim.live()),
                )
                self._hooks.joined()
            case JoinRefused(refusal, seed):
                self._refused(refusal.reason, f"seed {seed} refuses this node: {refusal.detail}")
            case NameInUse(detail, seed, holder):
                self._name_in_use(detail, seed, holder)
                if holder is not None:
                    self._check_name(holder, joining=True)
            case NameConflict(other):
                self._check_name(other, joining=False)
            case Rejected(reason, source, detail):
                self._hooks.rejected(reason)
                if source.live and self._once.due((source.name, reason), self._now()):
                    self._log.warning("dropped a packet", source=source, why=detail)
            case ResolveSeeds():
                self._resolve_seeds()
            case Waiting(text):
                self._wait(text)
            case Refuted(claim, incarnation):
                self._log.info("told the others that this node is alive", claim=claim, incarnation=incarnation)

    def _name_in_use(self, detail: str, seed: Address, holder: Member | None) -> None:
        """Say so: an earlier life of this node not yet found dead is nothing to worry about, anyone else is."""
        earlier = holder is not None and holder.id.boot < self.swim.self_member.id.boot
        if self._once.due(("name in use", holder.id if holder else seed), self._now()):
            level = self._log.info if earlier else self._log.warning
            level("the name is in use; waiting whether its holder still lives", seed=seed, detail=detail)

    def _wait(self, text: str) -> None:
        if self.swim.joined:
            self._log.debug(text)  # alone, and looking for the others again: no reason to worry a finished run
        elif not self._given_up and self._waiting.due("join", self._now()):
            limit = f"--join-timeout {self._join_timeout_s:g} s ends it" if self._join_timeout_s else "for ever"
            self._log.warning(f"{text}; {limit}")

    def _refused(self, reason: RefusalReason, text: str) -> None:
        if reason in (RefusalReason.RUN, RefusalReason.PROTOCOL):
            self._give_up(RunMismatchError(text))
        elif self._once.due(text, self._now()):
            self._log.warning(text)

    def _give_up(self, error: AdpsgdError) -> None:
        self._given_up = True
        self._hooks.fatal(error)

    def _changed(self, member: Member, before: Member | None) -> None:
        if before is None or before.id != member.id or before.state is not member.state:
            level = self._log.warning if member.state is MemberState.DEAD else self._log.info
            level("member is now " + member.state.name.lower(), member=member.id, address=member.address)
        self._hooks.changed(member, before)

    def _send(self, effect: SendPacket) -> None:
        if self._sending >= MAX_PACKETS_UNDER_WAY:
            return
        self._sending += 1
        self._tasks.start(f"packet to {effect.address}", self._deliver(effect.address, encode_packet(effect.packet)))

    async def _deliver(self, address: Address, data: bytes) -> None:
        try:
            answer = await self._transport.call(address, Method.DELIVER, data, timeout_s=PACKET_TIMEOUT_S)
            waiting = decode_deliver_response(answer) if self.swim.self_member.outbound_only else ()
        except (TransportError, WireError) as error:
            self._log.debug("packet lost", address=address, cause=error)  # the failure detector's own business
            return
        finally:
            self._sending -= 1
            self._told.notify()
        for packet in waiting:
            self._driver.post(PacketReceived(packet))
        if waiting:
            self._hooks.progressed()

    async def _ask(self, seed: Address) -> None:
        request = encode_join_request(self.swim.join_request())
        try:
            answer = await self._transport.call(seed, Method.JOIN, request, timeout_s=JOIN_TIMEOUT_S)
            response = decode_join_response(answer)
        except (TransportError, WireError) as error:
            # gRPC nests its reasons; the innermost is what a person needs: "Connection refused".
            reason = str(error).rpartition(": ")[2].rstrip("]") if isinstance(error, UnreachableError) else str(error)
            self._driver.post(JoinFailed(seed, reason))
            return
        self._driver.post(JoinAnswered(seed, response))
        self._hooks.progressed()

    def _resolve_seeds(self) -> None:
        if self._resolver is not None and not self._resolving:
            self._resolving = True
            self._tasks.start("resolve the seeds", self._resolve(self._resolver))

    async def _resolve(self, resolver: SeedResolver) -> None:
        try:
            addresses, nowhere = await resolver.resolve()
        finally:
            self._resolving = False
        self._driver.post(SeedsResolved(addresses, nowhere))

    def _check_name(self, other: Member, *, joining: bool) -> None:
        own = self.swim.self_member
        if other.outbound_only:
            self._leave_unchecked(other)
        elif other.address == own.address and other.id.boot > own.id.boot and not own.outbound_only:
            self._hooks.outnumbered(other)  # who holds its address is this node: it cannot live
        elif other.id not in self._checking:
            self._checking.add(other.id)
            self._tasks.start(f"check who is {other.id}", self._ask_holder(other, joining=joining))

    def _leave_unchecked(self, other: Member) -> None:
        """Say that there may be two of this name: who nobody can dial cannot be asked whether it lives."""
        if not other.live and other.id.boot > self.swim.self_member.id.boot:
            self._hooks.outnumbered(other)
        if other.live and self._once.due(("unchecked", other.id), self._now()):
            self._log.warning("another node may go by this node's name, and cannot be called", other=other)

    async def _ask_holder(self, other: Member, *, joining: bool) -> None:
        own = self.swim.self_member
        request = encode_join_request(self.swim.join_request())
        try:
            answer = await self._transport.call(other.address, Method.JOIN, request, timeout_s=JOIN_TIMEOUT_S)
            holder = decode_join_response(answer).source
        except (TransportError, WireError) as error:
            self._log.debug("the holder of the name does not answer", holder=other, cause=error)
            if not other.live and other.id.boot > own.id.boot:
                self._hooks.outnumbered(other)  # the others hold it dead, and so it seems from here
            return
        finally:
            self._checking.discard(other.id)
        # Of two that live, the one that came later yields; one that is still joining always does.
        if holder.id == other.id and (joining or own.id.boot > other.id.boot):
            self._give_up(
                NameInUseError(
                    f"another live node at {other.address} is called {other.name!r} already: "
                    "give this one another --name"
                )
            )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

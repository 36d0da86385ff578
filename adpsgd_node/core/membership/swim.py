"""Route events and timers of membership to their owners: the SWIM machine (Das, Gupta, Motivala 2002).

The machine is pure: time and randomness are handed in, and everything it wants done comes out as effects. Its driver
calls `start` once, `handle` with each event, and `expire` whenever `deadline` has come.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from adpsgd_node.core.membership.admission import admission, mismatch
from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import Effect, JoinRefused, NameInUse, Refuted, Rejected
from adpsgd_node.core.membership.event import (
    Advanced,
    Event,
    JoinAnswered,
    JoinFailed,
    Leave,
    PacketReceived,
    PhaseChanged,
)
from adpsgd_node.core.membership.join import Joining
from adpsgd_node.core.membership.member import Member, MemberState
from adpsgd_node.core.membership.packet import (
    Ack,
    JoinRequest,
    JoinResponse,
    Packet,
    Ping,
    PingRequest,
    Refusal,
    RefusalReason,
)
from adpsgd_node.core.membership.probe import Prober
from adpsgd_node.core.membership.relay import Relay
from adpsgd_node.core.membership.roster import Identity, Roster
from adpsgd_node.core.membership.schedule import (
    AckOverdue,
    JoinDue,
    ProbeDue,
    ProbeOver,
    ReconnectDue,
    RelayOver,
    Schedule,
    SuspicionOver,
    Timer,
)
from adpsgd_node.core.progress import Progress, ProgressEntry
from adpsgd_node.ids import Address

__all__ = ["Swim"]


class Swim:
    """One node's view of who takes part in the run."""

    def __init__(
        self,
        identity: Identity,
        config: MembershipConfig,
        rng: random.Random,
        *,
        seeds: Sequence[Address] = (),
        progress: Progress | None = None,
    ) -> None:
        self._identity = identity
        self._config = config
        self._rng = rng
        self._schedule = Schedule()
        self.progress = Progress(owner=identity.id) if progress is None else progress
        self.progress.merge([ProgressEntry(identity.id, 0, 0)])  # takes the own entry's place before it can be full
        self._roster = Roster(identity, config, rng, self.progress, self._schedule)
        sequence = itertools.count(1)
        self._prober = Prober(self._roster, self._schedule, config, rng, sequence)
        self._relay = Relay(self._roster, self._schedule, config, sequence)
        self._joining = Joining(identity.address, seeds, self._schedule, config, rng)

    @property
    def self_member(self) -> Member:
        """This node as it announces itself."""
        return self._roster.own

    @property
    def joined(self) -> bool:
        """Whether this node belongs to the run."""
        return self._joining.joined

    def live(self) -> tuple[Member, ...]:
        """Return the members that are ALIVE or SUSPECT, this node included until it leaves, sorted by name."""
        own = [self._roster.own] if self._roster.own.live else []
        return tuple(sorted([*self._roster.table.live(), *own], key=lambda member: member.name))

    def members(self) -> tuple[Member, ...]:
        """Return every member remembered, this node and the dead ones included, sorted by name."""
        return tuple(sorted([*self._roster.table.members(), self._roster.own], key=lambda member: member.name))

    def join_request(self) -> JoinRequest:
        """Write what `AskToJoin` is to be carried out with."""
        return JoinRequest(
            protocol=self._identity.protocol,
            run_id=self._identity.run_id,
            source=self._roster.own,
            progress=self.progress.entries(),
        )

    def start(self, now: float) -> tuple[Effect, ...]:
        """Begin to look for the run and to probe whoever turns up."""
        self._prober.start(now)
        self._schedule.add(now + self._config.reconnect_interval_s, ReconnectDue())
        return tuple(self._joining.start(now))

    def deadline(self) -> float | None:
        """Return when `expire` wants to be called; None after `Leave`."""
        return self._schedule.earliest()

    def expire(self, now: float) -> tuple[Effect, ...]:
        """Carry out every timer that is due."""
        if self._roster.own.state is MemberState.LEFT:
            return ()
        self._notice_pause(now)
        effects: list[Effect] = []
        while (timer := self._schedule.pop(now)) is not None:
            effects += self._expire_one(timer, now)
        return self._reviewed(effects, now)

    def handle(self, event: Event, now: float) -> tuple[Effect, ...]:
        """Take in one event."""
        if self._roster.own.state is MemberState.LEFT:
            return self._handle_after_leaving(event)
        self._notice_pause(now)
        effects: list[Effect] = []
        match event:
            case PacketReceived(packet):
                effects = self._receive(packet, now)
            case JoinAnswered(seed, response):
                effects = self._hear_answer(seed, response, now)
            case JoinFailed(seed, reason):
                effects = self._joining.failed(seed, reason, now)
            case PhaseChanged(phase):
                self._roster.enter(phase)
            case Advanced(steps, samples):
                self.progress.merge([ProgressEntry(self._identity.id, steps, samples)])
            case Leave():
                return self._leave()
        return self._reviewed(effects, now)

    def answer_join(self, request: JoinRequest, now: float) -> tuple[JoinResponse, tuple[Effect, ...]]:
        """Let a node in, with all that is known here, or say why not."""
        refusal, holder = admission(request, self._roster)
        if refusal is not None:
            if holder is not None:
                self._prober.prioritize(holder.name)  # a dead holder is soon found dead, and its name free
            members = () if holder is None else (holder,)
            return JoinResponse(refusal=refusal, source=self._roster.own, members=members), ()
        self.progress.hear(request.progress)
        effects = self._roster.learn(request.source, now)
        response = JoinResponse(
            refusal=None,
            source=self._roster.own,
            members=self._roster.table.members(),
            progress=self.progress.entries(),
        )
        return response, self._reviewed(effects, now)

    def _expire_one(self, timer: Timer, now: float) -> list[Effect]:
        match timer:
            case ProbeDue():
                return self._prober.advance(now)
            case AckOverdue():
                return self._prober.ask_relays(timer, now)
            case ProbeOver():
                return self._prober.give_up(timer, now)
            case RelayOver():
                self._relay.forget(timer)
                return []
            case SuspicionOver():
                return self._roster.bury(timer, now)
            case ReconnectDue():
                return self._reconnect(now)
            case JoinDue():
                return self._joining.due(timer, now)

    def _receive(self, packet: Packet, now: float) -> list[Effect]:
        wrong = mismatch(packet, self._identity)
        if wrong is not None:
            return [Rejected(wrong.reason, packet.source, wrong.detail)]
        source = packet.source
        if source.id == self._identity.id and source.address == self._identity.address:
            return []
        effects = self._roster.learn(source, now)
        for update in packet.updates:
            effects += self._learn_update(update, now)
        self.progress.hear(packet.progress)
        answer = self._answer(packet, now)
        # Its author must hear that it is held dead, and that we are not: at once, not with the next probe.
        refuted = any(isinstance(effect, Refuted) for effect in effects)
        if not answer and (refuted or self._roster.overtakes(source)):
            answer = [self._roster.compose(source.id, source.address, None)]
        return [*effects, *answer]

    def _learn_update(self, update: Member, now: float, *, old_news: bool = False) -> list[Effect]:
        known = self._roster.table.get(update.name)
        if known is not None and known.state is MemberState.DEAD and self._is_contradicted(known, update):
            self._prober.prioritize(known.name)  # others hold it alive: ask it directly
        return self._roster.learn(update, now, old_news=old_news)

    @staticmethod
    def _is_contradicted(known: Member, update: Member) -> bool:
        return update.state is MemberState.ALIVE and (update.id, update.incarnation) == (known.id, known.incarnation)

    def _answer(self, packet: Packet, now: float) -> list[Effect]:
        source = packet.source
        match packet.body:
            case Ping(sequence, target) | PingRequest(sequence, target, _) if target == self._identity.id:
                return [self._roster.compose(source.id, source.address, Ack(sequence))]
            case Ping():
                # Meant for an earlier life, or for who had this address before: no ack, but let it know who is here.
                return [self._roster.compose(source.id, source.address, None)]
            case PingRequest() as request:
                return self._relay.request(source, request, now)
            case Ack(sequence):
                return [] if self._prober.acknowledge(sequence) else self._relay.acknowledge(sequence)
            case None:
                return []

    def _hear_answer(self, seed: Address, response: JoinResponse, now: float) -> list[Effect]:
        refusal = response.refusal
        if response.source.id == self._identity.id and response.source.address == self._identity.address:
            return self._joining.answered_by_self(seed, now)
        if refusal is not None:
            return [*self._hear_refusal(seed, response, refusal, now), *self._joining.failed(seed, str(refusal), now)]
        effects = self._roster.learn(response.source, now)
        for member in response.members:
            effects += self._learn_update(member, now, old_news=True)
        self.progress.hear(response.progress)
        return [*effects, *self._joining.accepted(seed)]

    def _hear_refusal(self, seed: Address, response: JoinResponse, refusal: Refusal, now: float) -> list[Effect]:
        if refusal.reason is not RefusalReason.NAME_IN_USE:
            if self.joined:  # an address in the seed list belongs to others now: no reason to give up the run
                return [Rejected(refusal.reason, response.source, refusal.detail)]
            return [JoinRefused(refusal, seed)]
        holder = next(iter(response.members), None)
        if self.joined and holder is not None:
            return self._roster.learn(holder, now)  # a conflict between two members, found by asking a seed again
        return [NameInUse(refusal.detail, seed, holder)]

    def _reconnect(self, now: float) -> list[Effect]:
        self._schedule.add(now + self._config.reconnect_interval_s, ReconnectDue())
        self._roster.table.purge(now)
        reached = {member.address for member in self._roster.table.live()}
        return [*self._prober.ping_dead(now), *self._joining.revisit(reached)]

    def _reviewed(self, effects: list[Effect], now: float) -> tuple[Effect, ...]:
        alone = not self._roster.table.live()
        return (*effects, *self._joining.review(alone, now))

    def _leave(self) -> tuple[Effect, ...]:
        self._schedule.clear()
        peers = self._roster.table.live()
        self._roster.leave()
        told = self._rng.sample(peers, min(self._config.leave_announcements, len(peers)))
        return tuple(self._roster.compose(peer.id, peer.address, None) for peer in told)

    def _handle_after_leaving(self, event: Event) -> tuple[Effect, ...]:
        """Answer pings until the process ends: the ack's source says that this node has left."""
        if isinstance(event, PacketReceived) and mismatch(event.packet, self._identity) is None:
            match event.packet.body:
                case Ping(sequence, target) if target == self._identity.id:
                    source = event.packet.source
                    return (self._roster.compose(source.id, source.address, Ack(sequence)),)
        return ()

    def _notice_pause(self, now: float) -> None:
        """Give every timer back the time in which this process stood still (SIGSTOP, a suspended machine).

        What the others said meanwhile is still unread: judging them by timers that ran out unwatched would declare
        everyone dead on waking.
        """
        due = self._schedule.earliest()
        if due is not None and now - due > self._config.pause_tolerance_s:
            self._schedule.postpone(now - due)

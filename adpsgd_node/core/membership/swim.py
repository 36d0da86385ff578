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
from adpsgd_node.core.membership.effect import (
    AskToJoin,
    Effect,
    JoinRefused,
    MemberChanged,
    NameInUse,
    Refuted,
    Rejected,
)
from adpsgd_node.core.membership.event import (
    Advanced,
    Event,
    JoinAnswered,
    JoinFailed,
    Leave,
    LoopLagged,
    PacketReceived,
    PhaseChanged,
    SeedsResolved,
)
from adpsgd_node.core.membership.health import Health
from adpsgd_node.core.membership.hurry import Hurry
from adpsgd_node.core.membership.join import Joining
from adpsgd_node.core.membership.mailbox import Mailboxes
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
    RelayLate,
    RelayOver,
    Schedule,
    SuspicionOver,
    SyncDue,
    Timer,
)
from adpsgd_node.core.membership.sponsor import Sponsor, turn_s
from adpsgd_node.core.membership.sync import Syncing
from adpsgd_node.core.progress import Progress, ProgressEntry
from adpsgd_node.ids import Address, NodeId

__all__ = ["Swim"]

_FEW = 16
"""Members up to which each tries to reach the dead at the configured interval."""


class Swim:
    """One node's view of who takes part in the run."""

    def __init__(
        self,
        identity: Identity,
        config: MembershipConfig,
        rng: random.Random,
        *,
        seeds: Sequence[Address] = (),
        resolving: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """`resolving`: some seeds are names to be looked up, so `ResolveSeeds` is asked for and brings `seeds`."""
        self._identity = identity
        self._config = config
        self._rng = rng
        self._schedule = Schedule()
        self.progress = Progress(owner=identity.id) if progress is None else progress
        self.progress.merge([ProgressEntry(identity.id, 0, 0)])  # takes the own entry's place before it can be full
        self._health = Health()
        self._roster = Roster(identity, config, rng, self.progress, self._schedule, self._health)
        sequence = itertools.count(1)
        self._sponsor = Sponsor(self._roster, config, self._health)
        self._prober = Prober(self._roster, self._schedule, config, rng, sequence, self._health, self._sponsor)
        self._relay = Relay(self._roster, self._prober, self._schedule, config, sequence)
        self._syncing = Syncing(self._roster, self._schedule, config, rng)
        self._hurry = Hurry(self._roster, config, rng)
        own = None if identity.outbound_only else identity.address
        self._joining = Joining(own, seeds, self._schedule, config, rng, resolving=resolving)
        self._reunite_after = 0.0
        self._mailboxes = Mailboxes()
        self._untold: set[NodeId] = set()
        self._caller: Member | None = None
        """Who sent the packet that is being handled."""

    @property
    def self_member(self) -> Member:
        """This node as it announces itself."""
        return self._roster.own

    @property
    def joined(self) -> bool:
        """Whether this node belongs to the run."""
        return self._joining.joined

    @property
    def health(self) -> int:
        """How much reason this node has to doubt itself: 0, none, to `MAX_HEALTH`."""
        return self._health.score

    def live(self) -> tuple[Member, ...]:
        """Return the members that are ALIVE or SUSPECT, this node included until it leaves, sorted by name."""
        own = [self._roster.own] if self._roster.own.live else []
        return tuple(sorted([*self._roster.table.live(), *own], key=lambda member: member.name))

    def members(self) -> tuple[Member, ...]:
        """Return every member remembered, this node and the dead ones included, sorted by name."""
        return tuple(sorted([*self._roster.table.members(), self._roster.own], key=lambda member: member.name))

    def join_request(self) -> JoinRequest:
        """Write what `AskToJoin` is to be carried out with: all that is known here, once this node has joined."""
        return JoinRequest(
            protocol=self._identity.protocol,
            run_id=self._identity.run_id,
            source=self._roster.own,
            progress=self.progress.entries(),
            members=self._roster.table.members() if self.joined else (),
        )

    def start(self, now: float) -> tuple[Effect, ...]:
        """Begin to look for the run and to probe whoever turns up."""
        self._prober.start(now)
        self._syncing.start(now)
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
            case SeedsResolved(addresses, nowhere):
                effects = self._joining.resolved(addresses, nowhere, now)
            case LoopLagged(seconds):
                self._health.worsen(int(seconds / (self._config.ack_timeout_s / 2)))
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
        effects = [*self._roster.learn(request.source, now), *self._merge(request.members, now, tell=True)]
        response = JoinResponse(
            refusal=None,
            source=self._roster.own,
            members=self._roster.table.members(),
            progress=self.progress.entries(),
        )
        return response, self._reviewed(effects, now)

    def collect(self, caller: NodeId) -> tuple[Packet, ...]:
        """Hand out what waits for an outbound-only member that is calling, its answer included."""
        self._untold.discard(caller)
        return self._mailboxes.take(caller)

    @property
    def untold(self) -> int:
        """How many outbound-only members have yet to call, and to take the news that this node has left."""
        return len(self._untold)

    @property
    def farewell_s(self) -> float:
        """How long it takes until each has called that does."""
        return turn_s(self._config) + self._config.ack_timeout_s

    def _expire_one(self, timer: Timer, now: float) -> list[Effect]:
        match timer:
            case ProbeDue():
                return [*self._prober.advance(now), *self._sponsor.review(now)]
            case AckOverdue():
                return self._prober.ask_relays(timer, now)
            case ProbeOver():
                return self._prober.give_up(timer, now)
            case RelayLate():
                return self._relay.report(timer)
            case RelayOver():
                self._relay.forget(timer)
                return []
            case SuspicionOver():
                return self._roster.bury(timer, now)
            case ReconnectDue():
                return self._reconnect(now)
            case SyncDue():
                return self._syncing.due(timer, now)
            case JoinDue():
                return self._joining.due(timer, now)

    def _receive(self, packet: Packet, now: float) -> list[Effect]:
        wrong = mismatch(packet, self._identity)
        if wrong is not None:
            return [Rejected(wrong.reason, packet.source, wrong.detail)]
        source = packet.source
        if source.id == self._identity.id and source.address == self._identity.address:
            return []
        self._caller = source
        if source.outbound_only:
            self._sponsor.heard(source, now)
        if self._prober.asking:
            self._prober.heard(source.name)
        effects = self._roster.learn(source, now)
        table = self._roster.table
        for update in packet.updates:
            if table.has_graves:
                self._prober.weigh(update)
            effects += self._roster.learn(update, now)
        self.progress.hear(packet.progress)
        answer = self._answer(packet, now)
        # Its author must hear that it is held dead, and that we are not: at once, not with the next probe.
        if not answer and (self._refutes(effects) or self._roster.overtakes(source)):
            answer = [self._roster.compose(source.id, source.address, None)]
        return [*effects, *answer]

    @staticmethod
    def _refutes(effects: list[Effect]) -> bool:
        return any(isinstance(effect, Refuted) for effect in effects)

    def _merge(self, claims: Sequence[Member], now: float, *, tell: bool) -> list[Effect]:
        for claim in claims:
            self._prober.weigh(claim)
        return self._roster.merge(claims, now, tell=tell)

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
        self._syncing.answered(seed)
        # A joiner learns what the run knows already: to queue all of that as news would drown what is new.
        tell = self.joined
        effects = self._roster.learn(response.source, now, tell=tell)
        effects += self._merge(response.members, now, tell=tell)
        self.progress.hear(response.progress)
        return [*effects, *self._joining.accepted(seed, response.source.name)]

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
        crowd = max(1.0, self._roster.live_count / _FEW)
        wait_s = self._config.reconnect_interval_s * crowd * self._rng.uniform(0.75, 1.25)
        self._schedule.add(now + wait_s, ReconnectDue())
        self._roster.table.purge(now)
        return [*self._prober.ping_dead(now), *self._joining.revisit(self._reached)]

    def _reached(self, seed: Address, name: str | None) -> bool:
        """Tell whether a live member is known at a seed, by its address or as who answered there."""
        known = None if name is None else self._roster.table.get(name)
        return (known is not None and known.live) or self._roster.table.lives_at(seed)

    def _reunite(self, effects: Sequence[Effect], now: float) -> list[Effect]:
        """Compare all that is known with a member that was held dead and lives: it seldom was cut off alone.

        Its side holds ours dead as we hold its; each hears so by the comparison, and refutes.
        """
        back = [effect.member for effect in effects if isinstance(effect, MemberChanged) and _returned(effect)]
        dialable = [member for member in back if not member.outbound_only]
        if not dialable or now < self._reunite_after:
            return []
        self._reunite_after = now + self._config.probe_interval_s
        return [AskToJoin(self._rng.choice(dialable).address), *self._prober.ping_dead(now)]

    def _reviewed(self, effects: list[Effect], now: float) -> tuple[Effect, ...]:
        if effects:
            self._prober.meet(effects)
            effects = [*effects, *self._hurry.spread(effects, now), *self._reunite(effects, now)]
        alone = not self._roster.table.dialable_count
        return self._posted([*effects, *self._joining.review(alone, now)])

    def _posted(self, effects: list[Effect]) -> tuple[Effect, ...]:
        caller, self._caller = self._caller, None
        return tuple(self._mailboxes.sort(effects, caller, self._roster.table))

    def _leave(self) -> tuple[Effect, ...]:
        self._schedule.clear()
        peers = [member for member in self._roster.table.live() if not member.outbound_only]
        callers = self._sponsor.callers()
        self._roster.leave()
        told = self._rng.sample(peers, min(self._config.leave_announcements, len(peers)))
        self._untold = {caller.id for caller in callers}
        return self._posted([self._roster.compose(member.id, member.address, None) for member in (*told, *callers)])

    def _handle_after_leaving(self, event: Event) -> tuple[Effect, ...]:
        """Answer pings until the process ends: the ack's source says that this node has left."""
        if isinstance(event, PacketReceived) and mismatch(event.packet, self._identity) is None:
            match event.packet.body:
                case Ping(sequence, target) if target == self._identity.id:
                    self._caller = source = event.packet.source
                    return self._posted([self._roster.compose(source.id, source.address, Ack(sequence))])
        return ()

    def _notice_pause(self, now: float) -> None:
        """Give every timer back the time in which this process stood still (SIGSTOP, a suspended machine).

        What the others said meanwhile is still unread: judging them by timers that ran out unwatched would declare
        everyone dead on waking.
        """
        due = self._schedule.earliest()
        if due is not None and now - due > self._config.pause_tolerance_s:
            self._schedule.postpone(now - due)
            self._roster.postpone(now - due)
            self._sponsor.postpone(now - due)


def _returned(change: MemberChanged) -> bool:
    """Tell whether one life of a member is believed to go on that was believed to be over."""
    member, before = change.member, change.before
    return before is not None and before.state is MemberState.DEAD and member.live and before.id == member.id

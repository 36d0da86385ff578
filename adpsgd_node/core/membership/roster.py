"""Hold what this node believes of everyone, itself included, and pass it on."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.dissemination import Dissemination, retransmit_limit
from adpsgd_node.core.membership.effect import Effect, MemberChanged, NameConflict, Refuted, SendPacket
from adpsgd_node.core.membership.health import Health
from adpsgd_node.core.membership.member import Member, MemberState, Phase, supersedes
from adpsgd_node.core.membership.packet import Body, Packet
from adpsgd_node.core.membership.schedule import Schedule, SuspicionOver
from adpsgd_node.core.membership.suspicion import Suspicions
from adpsgd_node.core.membership.table import Table
from adpsgd_node.core.progress import Progress, ProgressEntry
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId

__all__ = ["SPONSORS", "Identity", "Roster"]

SPONSORS = 3
"""Members that judge one outbound-only member, by its calls."""

_SLOWER = 3.0
"""How many times as long a node that hears news only when it calls gives a suspect: the refutation may be late here."""

_MAX_CONFLICTS = 64
"""Most claims to our own name that are remembered, so as not to report each one again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this node is and what it takes part in."""

    id: NodeId
    address: Address
    """Where peers reach this node: what is bound, not 0.0.0.0."""
    run_id: RunId
    protocol: int = PROTOCOL_VERSION
    outbound_only: bool = False
    """Whether nobody can dial this node."""


class Roster:
    """The members, the news of them still to be told, and the progress of the run."""

    def __init__(
        self,
        identity: Identity,
        config: MembershipConfig,
        rng: random.Random,
        progress: Progress,
        schedule: Schedule,
        health: Health,
    ) -> None:
        self.identity = identity
        self.own = Member(
            identity.id, identity.address, 0, MemberState.ALIVE, Phase.JOINING, outbound_only=identity.outbound_only
        )
        self.table = Table(config)
        self._name = identity.id.name
        self.progress = progress
        self._config = config
        self._rng = rng
        self._schedule = schedule
        self._health = health
        self._suspicions = Suspicions(_slow_to_judge(config) if identity.outbound_only else config)
        self._news = Dissemination(config.max_queued_updates)
        self._conflicts: dict[tuple[NodeId, Address], float] = {}

    @property
    def live_count(self) -> int:
        """Live members, this node included."""
        return self.table.live_count + 1

    def learn(self, claim: Member, now: float, *, old_news: bool = False, tell: bool = True) -> list[Effect]:
        """Take in what someone says of a member, if it supersedes what is known, and pass it on unless told not to.

        `old_news` marks a claim out of another node's memory rather than fresh gossip: a death in it may long have been
        refuted, so it only casts suspicion on a member that lives here. That node has waited for a refutation already,
        so the suspect has no more than the least time.
        """
        name = claim.id.name
        if name == self._name:
            return self._hear_of_own_name(claim, now)
        known = self.table.get(name)
        if known is claim:
            return []
        remembered = old_news and known is not None and known.live and known.id == claim.id
        remembered = remembered and claim.state is MemberState.DEAD
        if remembered:
            claim = replace(claim, state=MemberState.SUSPECT, suspected_by="")
        if known is not None and not supersedes(claim, known):
            return self._confirm(claim, known, now, remembered=remembered)
        if claim.live and not (known is not None and known.live) and self.table.full:
            return []
        if known is None and not claim.live and old_news and tell:
            return []  # a grave forgotten here, or none of ours: passed to and fro it would never be forgotten by all
        self.table.put(claim, now)
        self._suspicions.end(name)
        if claim.state is MemberState.SUSPECT:
            dialable = self.table.dialable_count + (not self.own.outbound_only)
            judges = 1 if remembered else min(SPONSORS, dialable) if claim.outbound_only else None
            due = self._suspicions.begin(claim, self.live_count, now, judges)
            self._schedule.add(due, SuspicionOver(claim.id, claim.incarnation))
        if known is None and not claim.live:
            return []  # a grave we did not know: remembered against old news, but news to nobody
        if tell:
            self._news.add(claim)
        return [MemberChanged(claim, known)]

    def merge(self, claims: Iterable[Member], now: float, *, tell: bool = True) -> list[Effect]:
        """Take in the memory of another node."""
        effects: list[Effect] = []
        for claim in claims:
            effects += self.learn(claim, now, old_news=True, tell=tell)
        return effects

    def bury(self, timer: SuspicionOver, now: float) -> list[Effect]:
        """Declare dead the suspect that did not refute in time."""
        known = self.table.get(timer.id.name)
        if known is None or known.state is not MemberState.SUSPECT:
            return []
        if (known.id, known.incarnation) != (timer.id, timer.incarnation):
            return []
        return self.learn(replace(known, state=MemberState.DEAD, suspected_by=""), now)

    def postpone(self, by_s: float) -> None:
        """Give every suspect `by_s` seconds more, in which this node stood still."""
        self._suspicions.postpone(by_s)

    def overtakes(self, claim: Member) -> Member | None:
        """Return what `claim`'s author must hear: that it is held suspect, dead or gone, or a later life is known."""
        known = self.table.get(claim.name)
        if known is None or not supersedes(known, claim):
            return None
        return known if known.state is not MemberState.ALIVE or known.id != claim.id else None

    def enter(self, phase: Phase) -> None:
        """Change the own phase, and tell everyone."""
        if phase is not self.own.phase:
            self.own = replace(self.own, phase=phase, incarnation=self.own.incarnation + 1)
            self._news.add(self.own)

    def leave(self) -> None:
        """Change the own state to LEFT, and tell everyone."""
        self.own = replace(self.own, state=MemberState.LEFT)
        self._news.add(self.own)

    def compose(self, to: NodeId, address: Address, body: Body | None) -> SendPacket:
        """Write a packet with as much news as fits; whoever is held suspect or dead is told so first, to refute it."""
        limit = self._config.updates_per_packet
        updates: tuple[Member, ...] = ()
        if len(self._news):
            updates = self._news.take(limit, retransmit_limit(self._config.retransmit_multiplier, self.live_count))
        known = self.table.get(to.name)
        if known is not None and (known.state is not MemberState.ALIVE or known.id != to):
            updates = (known, *(update for update in updates if update.name != to.name))[:limit]
        packet = Packet(
            protocol=self.identity.protocol,
            run_id=self.identity.run_id,
            source=self.own,
            updates=updates,
            progress=self._progress_news(),
            body=body,
        )
        return SendPacket(address, packet, to)

    def _progress_news(self) -> tuple[ProgressEntry, ...]:
        own = self.progress.of(self.identity.id)
        others = self.progress.sample(self._config.progress_per_packet, self._rng, without=self.identity.id)
        return (own, *others) if own.steps or own.samples else others

    def _confirm(self, claim: Member, known: Member, now: float, *, remembered: bool) -> list[Effect]:
        """Count an accusation of a suspect; when it is not the first one of its author, it is no news."""
        if claim.state is not MemberState.SUSPECT or known.state is not MemberState.SUSPECT:
            return []
        if (claim.id, claim.incarnation) != (known.id, known.incarnation):
            return []
        if remembered:
            due = self._suspicions.hasten(claim.name, now)
            if due is not None:
                self._schedule.add(due, SuspicionOver(claim.id, claim.incarnation))
            return []
        due = self._suspicions.confirm(claim, now)
        if due is not None:
            # An earlier timer of this suspect stays set: it comes later than this one, and finds nothing to bury.
            self._schedule.add(due, SuspicionOver(claim.id, claim.incarnation))
            self._news.add(claim)
        return []

    def _hear_of_own_name(self, claim: Member, now: float) -> list[Effect]:
        own = self.own
        if own.state is MemberState.LEFT:
            return []
        effects: list[Effect] = []
        elsewhere = claim.live and claim.address != own.address
        # A twin with our very boot is a conflict to report, not a claim to outbid: each would outbid the other.
        twin = elsewhere and claim.state is MemberState.ALIVE
        if claim.id == own.id and supersedes(claim, own) and not twin:
            self.own = replace(own, incarnation=claim.incarnation + 1)
            self._news.add(self.own)
            effects.append(Refuted(claim, self.own.incarnation))
            self._health.worsen()  # others waited for us in vain
        if claim.id.boot < own.id.boot and claim.live:
            self._news.add(own)  # our ghost, or someone with an older boot: announce ourselves louder
        if (elsewhere or claim.id.boot > own.id.boot) and self._first_report(claim, now):
            # Everyone else hides one of us behind the larger boot, so only we can tell the other that there are two.
            effects.append(NameConflict(claim))
            if not claim.outbound_only:
                effects.append(self.compose(claim.id, claim.address, None))
        return effects

    def _first_report(self, claim: Member, now: float) -> bool:
        """Tell whether this claim to our name was not reported lately."""
        key = (claim.id, claim.address)
        last = self._conflicts.pop(key, None)
        if last is not None and now - last < self._config.reconnect_interval_s:
            self._conflicts[key] = last
            return False
        if len(self._conflicts) >= _MAX_CONFLICTS:
            del self._conflicts[next(iter(self._conflicts))]
        self._conflicts[key] = now
        return True


def _slow_to_judge(config: MembershipConfig) -> MembershipConfig:
    return replace(
        config,
        suspicion_multiplier=_SLOWER * config.suspicion_multiplier,
        minimum_suspicion_s=_SLOWER * config.minimum_suspicion_s,
    )

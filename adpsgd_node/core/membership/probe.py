"""Probe the members one after another: ping, ask relays, suspect (SWIM, sections 3 and 4.3)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import Effect, MemberChanged
from adpsgd_node.core.membership.health import Health
from adpsgd_node.core.membership.member import Member, MemberState
from adpsgd_node.core.membership.packet import Ping, PingRequest
from adpsgd_node.core.membership.roster import Roster
from adpsgd_node.core.membership.schedule import AckOverdue, ProbeDue, ProbeOver, Schedule
from adpsgd_node.core.membership.sponsor import Sponsor

__all__ = ["Prober"]

_MAX_PENDING = 256
"""Most probes under way at once; while so many are out no further one is started."""
_CALLS_PER_PROBE = 4
"""Calls on sponsors that an outbound-only node makes for each probe of one of the others."""
_DEAD_PINGED = 3
"""Members held dead that are pinged at one time: of several some may only have been cut off."""
_MAX_DOUBTED = 8
"""Most members probed out of turn because a relayed ping found them silent: a cut must not fill all turns."""


@dataclass(slots=True)
class _Probe:
    """One probe under way."""

    target: Member
    """As it was when the probe began."""
    asked: set[str] = field(default_factory=set)
    """Members asked to ping it."""
    heard: bool = False
    """Whether one of these spoke to us since."""


class Prober:
    """Walks round the shuffled live members, one probe each interval; probes may overlap, but not of one member."""

    def __init__(
        self,
        roster: Roster,
        schedule: Schedule,
        config: MembershipConfig,
        rng: random.Random,
        sequence: Iterator[int],
        health: Health,
        sponsor: Sponsor,
    ) -> None:
        self._roster = roster
        self._sponsor = sponsor
        self._calls = 0
        self._schedule = schedule
        self._config = config
        self._rng = rng
        self._sequence = sequence
        self._health = health
        self._round: list[str] = []  # in random order; the last is next
        self._urgent: dict[str, None] = {}
        self._doubted: dict[str, None] = {}
        self._pending: dict[int, _Probe] = {}
        self._asking: dict[int, _Probe] = {}  # of these, the ones that relays were asked about

    def start(self, now: float) -> None:
        """Set the first probe for a random moment, so that nodes started together do not probe in step."""
        self._schedule.add(now + self._rng.random() * self._config.probe_interval_s, ProbeDue())

    def prioritize(self, name: str) -> None:
        """Put `name` first in line. One held dead gets a ping that tells it so; if it lives it will refute."""
        if len(self._urgent) < _MAX_PENDING:
            self._urgent[name] = None

    def meet(self, effects: Iterable[Effect]) -> None:
        """Give each member that is new, or live again, a random place in this round (SWIM, section 4.3).

        Among a thousand members the next round is far away, and until then hardly anybody would probe it.
        """
        for effect in effects:
            if not isinstance(effect, MemberChanged) or not effect.member.live or effect.member.outbound_only:
                continue
            new = effect.before is None or not effect.before.live
            if new and len(self._round) < self._roster.table.live_count:
                place = self._rng.randrange(len(self._round) + 1)
                self._round.append(effect.member.name)
                self._round[place], self._round[-1] = self._round[-1], self._round[place]

    def weigh(self, claim: Member) -> None:
        """Ask a member next that is held dead here, if `claim` holds it alive as it was then."""
        known = self._roster.table.grave(claim.id.name)
        if known is None or known.state is not MemberState.DEAD or claim.state is not MemberState.ALIVE:
            return
        if (claim.id, claim.incarnation) == (known.id, known.incarnation):
            self.prioritize(known.name)

    def doubt(self, name: str) -> None:
        """Put `name` in line behind those: a relayed ping found it silent, so look after it ourselves."""
        if len(self._doubted) < _MAX_DOUBTED:
            self._doubted[name] = None

    def heard(self, name: str) -> None:
        """Take note that `name` speaks to us: when it was asked to ping somebody, the silence is not ours."""
        for probe in self._asking.values():
            if name in probe.asked:
                probe.heard = True

    @property
    def asking(self) -> bool:
        """Whether relays are being waited for."""
        return bool(self._asking)

    def advance(self, now: float) -> list[Effect]:
        """Start the next probe and set the time of the one after it."""
        if self._roster.own.outbound_only:
            return self._call_on(now)
        self._schedule.add(now + self._health.scaled(self._config.probe_interval_s), ProbeDue())
        target = self._next_target()
        return [] if target is None else [self._ping(target, now)]

    def _call_on(self, now: float) -> list[Effect]:
        """Call one sponsor, which is how they know that this node lives, and another member now and then."""
        self._schedule.add(now + self._config.probe_interval_s, ProbeDue())  # however slow: they are waiting
        self._calls += 1
        sponsors = self._sponsor.sponsors()
        effects: list[Effect] = []
        if sponsors:
            sponsor = self._roster.table.get(sponsors[self._calls % len(sponsors)])
            assert sponsor is not None, "sponsors are live members"
            under_way = any(probe.target.id == sponsor.id for probe in self._pending.values())
            gossip = self._roster.compose(sponsor.id, sponsor.address, None)
            effects.append(gossip if under_way else self._ping(sponsor, now))
        if self._urgent or self._calls % _CALLS_PER_PROBE == 0:
            target = self._next_target()
            effects += [] if target is None or target.name in sponsors else [self._ping(target, now)]
        return effects

    def ping_dead(self, now: float) -> list[Effect]:
        """Ping some members held dead, so that both sides of a healed partition find each other again."""
        dead = [member for member in self._roster.table.dead() if not member.outbound_only]
        chosen = self._rng.sample(dead, min(_DEAD_PINGED, len(dead)))
        return [self._ping(member, now) for member in chosen]

    def acknowledge(self, sequence: int) -> bool:
        """End the probe that `sequence` belongs to; tell whether there was one."""
        if self._pending.pop(sequence, None) is None:
            return False
        self._asking.pop(sequence, None)
        self._health.improve()
        return True

    def ask_relays(self, timer: AckOverdue, now: float) -> list[Effect]:
        """Ask relays to ping the silent member, and ping it once more: with two members there is no relay.

        That is done twice in the time of one indirect probe, each time through others: it makes a wrong suspicion
        rarer by the square, and costs nothing as long as all is well.
        """
        probe = self._pending.get(timer.sequence)
        if probe is None:
            return []
        known = self._roster.table.get(probe.target.name)
        if known is None or not known.live or known.id != probe.target.id:  # others were faster
            del self._pending[timer.sequence]
            self._asking.pop(timer.sequence, None)
            return []
        half_s = self._health.scaled(self._config.indirect_timeout_s) / 2
        next_step = ProbeOver(timer.sequence) if timer.again else AckOverdue(timer.sequence, again=True)
        self._schedule.add(now + half_s, next_step)
        target = probe.target
        request = PingRequest(timer.sequence, target.id, target.address)
        relays = self._relays(target.name)
        if timer.again and self._roster.own.outbound_only:  # what they heard waits for us until we call them again
            relays = [relay for name in sorted(probe.asked) if (relay := self._roster.table.get(name)) and relay.live]
        elif timer.again:
            relays = [relay for relay in relays if relay.name not in probe.asked] or relays
        else:  # only these have time to be heard before the probe is over
            self._asking[timer.sequence] = probe
            probe.asked = {relay.name for relay in relays}
        effects: list[Effect] = [self._roster.compose(relay.id, relay.address, request) for relay in relays]
        return [*effects, self._roster.compose(target.id, target.address, Ping(timer.sequence, target.id))]

    def give_up(self, timer: ProbeOver, now: float) -> list[Effect]:
        """Suspect the member that answered neither directly nor through a relay; a suspect is accused once more."""
        probe = self._pending.pop(timer.sequence, None)
        self._asking.pop(timer.sequence, None)
        if probe is None:
            return []
        # No relay heard either: that puts our own ears in doubt. Lifeguard counts each missed nack, but relays die too,
        # and where many die at once the survivors would then take them for healthy and themselves for ill.
        if not probe.heard:
            self._health.worsen()
        # The incarnation of when the probe began: if it was raised since, the member has spoken and is not suspected.
        own = self._roster.own.name
        return self._roster.learn(replace(probe.target, state=MemberState.SUSPECT, suspected_by=own), now)

    def _relays(self, target: str) -> list[Member]:
        return self._roster.table.pick(
            self._config.relays,
            self._rng,
            lambda member: member.state is MemberState.ALIVE and member.id.name != target and not member.outbound_only,
        )

    def _ping(self, target: Member, now: float) -> Effect:
        sequence = next(self._sequence)
        if target.live:
            self._pending[sequence] = _Probe(target)
            self._schedule.add(now + self._health.scaled(self._config.ack_timeout_s), AckOverdue(sequence))
        return self._roster.compose(target.id, target.address, Ping(sequence, target.id))

    def _next_target(self) -> Member | None:
        table = self._roster.table
        while self._urgent:
            name = next(iter(self._urgent))
            del self._urgent[name]
            member = table.get(name)
            if member is not None and member.state is not MemberState.LEFT and not member.outbound_only:
                return member
        if len(self._pending) >= _MAX_PENDING:
            return None
        under_way = {probe.target.id for probe in self._pending.values()}
        while self._doubted:
            name = next(iter(self._doubted))
            del self._doubted[name]
            member = table.get(name)
            alive = member is not None and member.state is MemberState.ALIVE and not member.outbound_only
            if member is not None and alive and member.id not in under_way:
                return member
        for _ in range(2):  # what is left of this round, then a new one
            while self._round:
                member = table.get(self._round.pop())
                if member is not None and member.live and member.id not in under_way:
                    return member
            names = table.dialable_names() if table.dialable_count < table.live_count else table.names()
            self._rng.shuffle(names)
            self._round = names
        return None

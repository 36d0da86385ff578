"""Probe the members one after another: ping, ask relays, suspect (SWIM, sections 3 and 4.3)."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import Effect
from adpsgd_node.core.membership.member import Member, MemberState
from adpsgd_node.core.membership.packet import Ping, PingRequest
from adpsgd_node.core.membership.roster import Roster
from adpsgd_node.core.membership.schedule import AckOverdue, ProbeDue, ProbeOver, Schedule

__all__ = ["Prober"]

_MAX_PENDING = 256
"""Most probes under way at once; while so many are out no further one is started."""


class Prober:
    """Walks round the shuffled live members, one probe each interval; probes may overlap, but not of one member."""

    def __init__(
        self,
        roster: Roster,
        schedule: Schedule,
        config: MembershipConfig,
        rng: random.Random,
        sequence: Iterator[int],
    ) -> None:
        self._roster = roster
        self._schedule = schedule
        self._config = config
        self._rng = rng
        self._sequence = sequence
        self._round: deque[str] = deque()
        self._urgent: dict[str, None] = {}
        self._pending: dict[int, Member] = {}  # as it was when its probe began

    def start(self, now: float) -> None:
        """Set the first probe for a random moment, so that nodes started together do not probe in step."""
        self._schedule.add(now + self._rng.random() * self._config.probe_interval_s, ProbeDue())

    def prioritize(self, name: str) -> None:
        """Put `name` first in line. One held dead gets a ping that tells it so; if it lives it will refute."""
        if len(self._urgent) < _MAX_PENDING:
            self._urgent[name] = None

    def advance(self, now: float) -> list[Effect]:
        """Start the next probe and set the time of the one after it."""
        self._schedule.add(now + self._config.probe_interval_s, ProbeDue())
        target = self._next_target()
        return [] if target is None else [self._ping(target, now)]

    def ping_dead(self, now: float) -> list[Effect]:
        """Ping one member held dead, so that both sides of a healed partition find each other again."""
        dead = self._roster.table.dead()
        return [self._ping(self._rng.choice(dead), now)] if dead else []

    def acknowledge(self, sequence: int) -> bool:
        """End the probe that `sequence` belongs to; tell whether there was one."""
        return self._pending.pop(sequence, None) is not None

    def ask_relays(self, timer: AckOverdue, now: float) -> list[Effect]:
        """Ask relays to ping the silent member, and ping it once more: with two members there is no relay."""
        target = self._pending.get(timer.sequence)
        if target is None:
            return []
        self._schedule.add(now + self._config.indirect_timeout_s, ProbeOver(timer.sequence))
        able = [
            member
            for member in self._roster.table.live()
            if member.state is MemberState.ALIVE and member.name != target.name
        ]
        request = PingRequest(timer.sequence, target.id, target.address)
        relays = self._rng.sample(able, min(self._config.relays, len(able)))
        effects: list[Effect] = [self._roster.compose(relay.id, relay.address, request) for relay in relays]
        return [*effects, self._roster.compose(target.id, target.address, Ping(timer.sequence, target.id))]

    def give_up(self, timer: ProbeOver, now: float) -> list[Effect]:
        """Suspect the member that answered neither directly nor through a relay."""
        target = self._pending.pop(timer.sequence, None)
        if target is None or target.state is not MemberState.ALIVE:
            return []
        # The incarnation of when the probe began: if it was raised since, the member has spoken and is not suspected.
        return self._roster.learn(replace(target, state=MemberState.SUSPECT), now)

    def _ping(self, target: Member, now: float) -> Effect:
        sequence = next(self._sequence)
        if target.live:
            self._pending[sequence] = target
            self._schedule.add(now + self._config.ack_timeout_s, AckOverdue(sequence))
        return self._roster.compose(target.id, target.address, Ping(sequence, target.id))

    def _next_target(self) -> Member | None:
        table = self._roster.table
        while self._urgent:
            name = next(iter(self._urgent))
            del self._urgent[name]
            member = table.get(name)
            if member is not None and member.state is not MemberState.LEFT:
                return member
        if len(self._pending) >= _MAX_PENDING:
            return None
        under_way = {member.id for member in self._pending.values()}
        for _ in range(2):  # what is left of this round, then a new one
            while self._round:
                member = table.get(self._round.popleft())
                if member is not None and member.live and member.id not in under_way:
                    return member
            names = [member.name for member in table.live()]
            self._rng.shuffle(names)
            self._round.extend(names)
        return None

"""Ping on behalf of others and pass the acks back: one-way packets only, nobody waits."""

from __future__ import annotations

from collections.abc import Iterator

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import Effect
from adpsgd_node.core.membership.member import Member
from adpsgd_node.core.membership.packet import Ack, Ping, PingRequest
from adpsgd_node.core.membership.roster import Roster
from adpsgd_node.core.membership.schedule import RelayOver, Schedule

__all__ = ["Relay"]


class Relay:
    """Remembers for whom each relayed ping is out; at most `max_relayed_pings`, each until the asker has given up."""

    def __init__(self, roster: Roster, schedule: Schedule, config: MembershipConfig, sequence: Iterator[int]) -> None:
        self._roster = roster
        self._schedule = schedule
        self._config = config
        self._sequence = sequence
        self._pending: dict[int, tuple[Member, int]] = {}

    def request(self, asker: Member, request: PingRequest, now: float) -> list[Effect]:
        """Ping the target under a sequence number of our own."""
        if len(self._pending) >= self._config.max_relayed_pings:
            return []
        sequence = next(self._sequence)
        self._pending[sequence] = (asker, request.sequence)
        self._schedule.add(now + self._config.indirect_timeout_s, RelayOver(sequence))
        return [self._roster.compose(request.target, request.target_address, Ping(sequence, request.target))]

    def acknowledge(self, sequence: int) -> list[Effect]:
        """Pass the ack on to whoever asked for the ping, under its own sequence number."""
        pending = self._pending.pop(sequence, None)
        if pending is None:
            return []
        asker, asked_under = pending
        return [self._roster.compose(asker.id, asker.address, Ack(asked_under))]

    def forget(self, timer: RelayOver) -> None:
        """Drop the ping whose target did not answer."""
        self._pending.pop(timer.sequence, None)

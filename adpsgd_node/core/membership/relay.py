"""Ping on behalf of others and pass the acks back: one-way packets only, nobody waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import Effect
from adpsgd_node.core.membership.member import Member
from adpsgd_node.core.membership.packet import Ack, Ping, PingRequest
from adpsgd_node.core.membership.probe import Prober
from adpsgd_node.core.membership.roster import Roster
from adpsgd_node.core.membership.schedule import RelayLate, RelayOver, Schedule

__all__ = ["Relay"]


@dataclass(frozen=True, slots=True)
class _Relayed:
    asker: Member
    asked_under: int
    target: str


class Relay:
    """Remembers for whom each relayed ping is out; at most `max_relayed_pings`, each until the asker has given up."""

    def __init__(
        self, roster: Roster, prober: Prober, schedule: Schedule, config: MembershipConfig, sequence: Iterator[int]
    ) -> None:
        self._roster = roster
        self._prober = prober
        self._schedule = schedule
        self._config = config
        self._sequence = sequence
        self._pending: dict[int, _Relayed] = {}

    def request(self, asker: Member, request: PingRequest, now: float) -> list[Effect]:
        """Ping the target under a sequence number of our own."""
        target = self._roster.table.get(request.target.name)
        if len(self._pending) >= self._config.max_relayed_pings or (target is not None and target.outbound_only):
            return []
        sequence = next(self._sequence)
        self._pending[sequence] = _Relayed(asker, request.sequence, request.target.name)
        self._schedule.add(now + self._config.indirect_timeout_s / 2, RelayLate(sequence))
        self._schedule.add(now + self._config.indirect_timeout_s, RelayOver(sequence))
        return [self._roster.compose(request.target, request.target_address, Ping(sequence, request.target))]

    def report(self, timer: RelayLate) -> list[Effect]:
        """Let the asker hear that it is heard though the target is not, and look after the target ourselves.

        The first is Lifeguard's nack (section 4.A): without a word the asker would have to doubt its own ears. By the
        second a member that does not answer is soon judged by several, each by its own probe.
        """
        pending = self._pending.get(timer.sequence)
        if pending is None:
            return []
        self._prober.doubt(pending.target)
        return [self._roster.compose(pending.asker.id, pending.asker.address, None)]

    def acknowledge(self, sequence: int) -> list[Effect]:
        """Pass the ack on to whoever asked for the ping, under its own sequence number."""
        pending = self._pending.pop(sequence, None)
        if pending is None:
            return []
        return [self._roster.compose(pending.asker.id, pending.asker.address, Ack(pending.asked_under))]

    def forget(self, timer: RelayOver) -> None:
        """Drop the ping whose target did not answer."""
        self._pending.pop(timer.sequence, None)

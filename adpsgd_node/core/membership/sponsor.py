"""Judge members that nobody can dial by their own calls: a few sponsors each expect to hear from them.

An outbound-only member cannot be pinged, and it cannot call a thousand others every second. So it calls its sponsors in
turn: those dialable live members that rank highest by a hash of both names (rendezvous hashing, Thaler and Ravishankar
1998), which every node works out for itself, and of which few change when a member comes or goes. A sponsor that has
not heard of it for a while suspects it, as a prober does a member that does not answer; the rest is as for anyone: news
of the suspicion reaches it with the answer to any of its calls, and it refutes.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import Effect
from adpsgd_node.core.membership.health import Health
from adpsgd_node.core.membership.member import Member, MemberState
from adpsgd_node.core.membership.roster import SPONSORS, Roster
from adpsgd_node.ids import NodeId

__all__ = ["SILENT_TURNS", "Sponsor", "silence_s", "sponsors_of", "turn_s"]

SILENT_TURNS = 3
"""Calls in a row that a sponsor must miss before it suspects: at 5 % loss, one in 8,000 goes that far by chance."""

_MAX_PATIENCE = 8
"""A sponsor that was wrong waits longer for one it does not hear itself: twice each time, at most this many times."""


def sponsors_of(name: str, candidates: Iterable[str]) -> list[str]:
    """Return who of the `candidates` (names of dialable live members) sponsors `name`, the highest rank first."""
    return heapq.nlargest(SPONSORS, candidates, key=lambda candidate: _rank(name, candidate))


def turn_s(config: MembershipConfig) -> float:
    """Return the time in which an outbound-only member calls each of its sponsors once."""
    return SPONSORS * config.probe_interval_s


def silence_s(config: MembershipConfig) -> float:
    """Return how long an outbound-only member may not be heard by one of its sponsors."""
    return SILENT_TURNS * turn_s(config) + config.ack_timeout_s + config.indirect_timeout_s


@dataclass(slots=True)
class _Watched:
    id: NodeId
    since: float
    incarnation: int
    patience: int = 2
    """Times the usual silence; more than once until it has called here: it may not know us for a sponsor yet."""
    accused: bool = False


class Sponsor:
    """What one node does for the outbound-only members that it sponsors; and, if it is one itself, who its own are."""

    def __init__(self, roster: Roster, config: MembershipConfig, health: Health) -> None:
        self._roster = roster
        self._config = config
        self._health = health
        self._watched: dict[str, _Watched] = {}
        self._wards: tuple[int, frozenset[str]] = (-1, frozenset())
        self._own: tuple[int, tuple[str, ...]] = (-1, ())

    def heard(self, source: Member, now: float) -> None:
        """Take note of a call by an outbound-only member."""
        watched = self._watched.get(source.name)
        if watched is not None and watched.id == source.id:
            watched.since, watched.incarnation, watched.patience = now, source.incarnation, 1
            watched.accused = False
        if not self._roster.table.dialable_count:
            self._health.improve()  # with nobody to ping, its calls are what shows that this node hears

    def review(self, now: float) -> list[Effect]:
        """Suspect those that were silent for too long; to be called every probe interval."""
        members = self._roster.table.outbound_only()
        if not members:
            self._watched.clear()
            return []
        wards = self._names_of_wards()
        self._watched = {name: watched for name, watched in self._watched.items() if name in wards}
        return [effect for member in members if member.name in wards for effect in self._judge(member, now)]

    def postpone(self, by_s: float) -> None:
        """Give everyone `by_s` seconds more, in which this node stood still and heard nobody."""
        for watched in self._watched.values():
            watched.since += by_s

    def sponsors(self) -> tuple[str, ...]:
        """Return the names of this node's own sponsors, the highest rank first."""
        table = self._roster.table
        if self._own[0] != table.lineup:
            self._own = (table.lineup, tuple(sponsors_of(self._roster.own.name, table.dialable_names())))
        return self._own[1]

    def callers(self) -> list[Member]:
        """Return those that this node is a sponsor of: they call in turn."""
        if self._roster.own.outbound_only:
            return []  # nobody calls it
        wards = self._names_of_wards()
        return [member for member in self._roster.table.outbound_only() if member.name in wards]

    def _judge(self, member: Member, now: float) -> list[Effect]:
        watched = self._watched.get(member.name)
        if watched is None or watched.id != member.id:
            self._watched[member.name] = _Watched(member.id, now, member.incarnation)
            return []
        if member.incarnation != watched.incarnation:
            # It spoke, though not to us. If it had to refute us, the fault is on the way between us.
            patience = min(_MAX_PATIENCE, 2 * watched.patience) if watched.accused else watched.patience
            self._watched[member.name] = _Watched(member.id, now, member.incarnation, patience)
            return []
        if watched.accused or now - watched.since < watched.patience * self._health.scaled(silence_s(self._config)):
            return []
        watched.accused = True
        own = self._roster.own.name
        return self._roster.learn(replace(member, state=MemberState.SUSPECT, suspected_by=own), now)

    def _names_of_wards(self) -> frozenset[str]:
        """Return the names of those that this node sponsors.

        An outbound-only node that knows of no dialable member is nobody's ward and hears of nobody: it gives up the
        others of its kind itself, with whom it can do nothing.
        """
        table, own = self._roster.table, self._roster.own
        if self._wards[0] == table.lineup:
            return self._wards[1]
        names = [member.name for member in table.outbound_only()]
        if own.outbound_only:
            wards = [] if table.dialable_count else names
        else:
            dialable = table.dialable_names()
            wards = [name for name in names if _is_sponsor(own.name, name, dialable)]
        self._wards = (table.lineup, frozenset(wards))
        return self._wards[1]


def _is_sponsor(own: str, name: str, others: Iterable[str]) -> bool:
    """Tell whether `own` is among the sponsors of `name`: fewer than `SPONSORS` of the others rank higher."""
    rank, higher = _rank(name, own), 0
    for other in others:
        higher += _rank(name, other) > rank
        if higher >= SPONSORS:
            return False
    return True


def _rank(name: str, candidate: str) -> tuple[bytes, str]:
    digest = hashlib.blake2b(f"{name}/{candidate}".encode(), digest_size=8).digest()  # "/" is in no name
    return digest, candidate

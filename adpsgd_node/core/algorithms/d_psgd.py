"""Pace D-PSGD: after each step a node mixes with all its neighbors, once each (Lian et al. 2017, arXiv 1705.09056,
algorithm 1).

    x_i <- x_i + sum_j w_ij (x_j - x_i)          from the parameters after the same step on both sides of an edge

A round begins with a step and is over when every neighbor has been met, or is no neighbor any more: membership has
found it dead, or it has left, stopped or been set apart. The next step waits for it, and overlaps with nothing but its
own computing.

Each edge is one exchange, opened by the end that `opens` names, which says in which round it is. One that is opened to
a node in an earlier round, or between two, is kept waiting until that node has come so far. An end that is in no round,
as its trainer steps no more, is not waited for: the other one opens.

Rounds are numbered alike on all nodes, though steps are not: who comes late, or has been cut off, hears from the others
how far they are, and counts its next round like theirs. Until then it meets those ahead of it at once, and those that
are ahead do not wait for it in a round it will never be in. So nobody waits in a circle: a node waits only for nodes
in an earlier round or its own, and two in the same round meet. (If each counted for itself, a newcomer that meets one
neighbor in its round 640 and another in its round 643 would hold up all three for ever.)
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from adpsgd_node.core.exchange.outcome import Outcome

__all__ = [
    "Admit",
    "Asked",
    "CutShort",
    "DPsgd",
    "Event",
    "InboundEnded",
    "Mixed",
    "NeighborRenewed",
    "NeighborsChanged",
    "Open",
    "OutboundEnded",
    "Paused",
    "Resumed",
    "Stepped",
    "Withdrawn",
    "opens",
]

FIRST_RETRY_S = 0.01
LARGEST_RETRY_S = 1.0
"""Pauses before an exchange that did not come about is tried again, for as long as the peer is a neighbor."""
LEAST_JITTER = 0.5
"""A pause is drawn uniformly between this part of its length and the whole."""

MAX_HEARD = 1 << 61
"""Rounds a peer may claim to be in; what a lie adds stays far below `MAX_ROUND`, which the wire carries."""

MET = frozenset({Outcome.COMPLETE, Outcome.PARTIAL, Outcome.BROKEN})
"""What ends an edge's part in a round. Of a broken exchange both sides keep the same chunks, or none."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """The trainer has done `step` steps, and waits for the round that follows the last one."""

    step: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """A trainer steps from now on."""


@dataclass(frozen=True, slots=True)
class Paused:
    """No trainer steps, or none whose model may reach others: rounds are over at once, and whoever asks is let in."""


@dataclass(frozen=True, slots=True)
class NeighborsChanged:
    names: tuple[str, ...]
    opened_here: frozenset[str]
    """Those among them to whom this node opens the exchange."""
    never_called: frozenset[str] = frozenset()
    """Those that nobody can dial: only they open."""


@dataclass(frozen=True, slots=True)
class NeighborRenewed:
    """Another boot of a neighbor runs now; whatever is under way with the old one ends by itself."""

    name: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A peer has opened an exchange and waits."""

    ticket: int
    """Names this exchange in what follows: one peer may wait twice, as itself and as its ghost."""
    peer: str
    round: int = 0
    """The round it is in; 0: none."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A peer that waits has gone."""

    ticket: int


@dataclass(frozen=True, slots=True)
class InboundEnded:
    """An exchange that was let in has ended, however it did."""

    ticket: int
    began: bool = True
    """Whether it was more than let in: the peer of one that was declined comes again."""


@dataclass(frozen=True, slots=True)
class CutShort:
    """A neighbor would not have what it got of the exchange that it had opened, and may keep away from now on without a
    word: this end opens, and hears of it, until the neighbor opens again.
    """

    name: str


@dataclass(frozen=True, slots=True)
class OutboundEnded:
    peer: str
    outcome: Outcome
    round: int = 0
    """The round the peer was in; 0: none, or it did not say."""


@dataclass(frozen=True, slots=True)
class Open:
    """Open the exchange with a neighbor; the peer may keep it waiting for as long as it takes."""

    peer: str


@dataclass(frozen=True, slots=True)
class Admit:
    """Go on with the exchange that a peer has opened."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Mixed:
    """The round after `step` is over: the next step may be applied."""

    step: int


Event = (
    Stepped
    | Resumed
    | Paused
    | NeighborsChanged
    | NeighborRenewed
    | Asked
    | Withdrawn
    | InboundEnded
    | CutShort
    | OutboundEnded
)
Action = Open | Admit | Mixed


def opens(own: str, other: str) -> bool:
    """Tell which end of an edge opens its exchanges: both ends agree, and each node has about half of its edges."""
    low, high = sorted((own, other))
    return (own == low) == bool(zlib.crc32(f"{low}/{high}".encode()) & 1)  # "/" is in no name


class DPsgd:
    """The rounds of one node. Feed it events, carry out its actions, call `expire` at `deadline`."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._step = 0
        self._in_round = False
        self._paused = True
        self._neighbors: tuple[str, ...] = ()
        self._opened_here: frozenset[str] = frozenset()
        self._never_called: frozenset[str] = frozenset()
        self._resting: set[str] = set()
        """Peers that were in no round when they last spoke, or broke off: this end opens."""
        self._round = 0
        self._heard = 0
        """The latest round that a peer was in."""
        self._met: set[str] = set()
        """Whom this node has met in this round."""
        self._outbound: set[str] = set()
        self._inbound: dict[int, Asked] = {}
        """Who has been let in, by ticket."""
        self._waiting: dict[int, Asked] = {}
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    @property
    def round(self) -> int:
        """The round this node is in; 0: none, as no trainer steps."""
        return 0 if self._paused else self._round

    def handle(self, event: Event, now: float) -> tuple[Action, ...]:
        """Take one event."""
        match event:
            case Stepped(step):
                self._begin(step)
            case Resumed():
                self._paused = False
            case Paused():
                self._paused = True
            case NeighborsChanged(names, opened_here, never_called):
                self._met.difference_update(set(self._neighbors).difference(names))
                self._resting.intersection_update(names)
                self._neighbors, self._opened_here, self._never_called = names, opened_here, never_called
                self._not_before = {name: at for name, at in self._not_before.items() if name in names}
                self._failures = {name: count for name, count in self._failures.items() if name in names}
            case NeighborRenewed(name):  # the new one has met nobody: it may be waiting for this node
                self._met.discard(name)
                self._resting.discard(name)
            case Asked(ticket, peer, round_):
                self._waiting[ticket] = event
                self._hear(peer, round_)
            case Withdrawn(ticket):
                self._waiting.pop(ticket, None)
            case InboundEnded(ticket, began):
                ended = self._inbound.pop(ticket)
                if began and ended.round in (0, self._round):  # else it is behind, and will come again
                    self._met.add(ended.peer)
            case CutShort(name):
                if name in self._neighbors:
                    self._resting.add(name)
            case OutboundEnded(peer, outcome, round_):
                self._outbound.discard(peer)
                if outcome in MET:
                    self._hear(peer, round_)
                self._note(peer, outcome, now)
        return self._act(now)

    def deadline(self) -> float | None:
        """Return when an exchange may be tried again."""
        if not self._in_round:
            return None
        return min((self._not_before.get(name, 0.0) for name in self._to_open()), default=None)

    def expire(self, now: float) -> tuple[Action, ...]:
        """Try again what was put off."""
        return self._act(now)

    def _begin(self, step: int) -> None:
        if step > self._step or not self._in_round:
            self._step, self._in_round = step, True
            self._round = max(self._round + 1, self._heard)
            self._met.clear()

    def _hear(self, peer: str, round_: int) -> None:
        self._heard = max(self._heard, min(round_, MAX_HEARD))
        if round_:
            self._resting.discard(peer)
        elif peer in self._neighbors:
            self._resting.add(peer)

    def _note(self, peer: str, outcome: Outcome, now: float) -> None:
        if outcome in MET:
            self._met.add(peer)
            self._failures.pop(peer, None)
            self._not_before.pop(peer, None)
            return
        failures = self._failures[peer] = self._failures.get(peer, 0) + 1
        longest = min(LARGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(failures - 1, 10))
        self._not_before[peer] = now + longest * self._rng.uniform(LEAST_JITTER, 1.0)

    def _act(self, now: float) -> tuple[Action, ...]:
        actions: list[Action] = [Admit(ticket) for ticket in self._admissible()]
        if self._in_round and not self._paused:
            due = [name for name in self._to_open() if self._not_before.get(name, 0.0) <= now]
            self._outbound.update(due)
            actions += [Open(name) for name in due]
        if self._in_round and (self._paused or not (self._missing() or self._outbound or self._inbound)):
            self._in_round = False
            actions.append(Mixed(self._step))
        return tuple(actions)

    def _admissible(self) -> list[int]:
        """Take those who may go on out of the queue.

        In a round these are all that are in it, or in an earlier one; neighbors or not: news of a member reaches one
        end of an edge before the other. Who is in no round is let in whenever it asks: it steps no more, and others may
        be waiting for it, which it must come back to. An exchange that this node opened to the peer meanwhile holds up
        nothing: when both ends open one, as while one of them begins to step again, each may depend on the other.
        """
        if not (self._paused or self._in_round):
            return []
        admitted: list[int] = []
        let_in = {asked.peer for asked in self._inbound.values()}
        for ticket, asked in self._waiting.items():
            if asked.peer not in let_in and (self._paused or asked.round <= self._round):
                admitted.append(ticket)
                let_in.add(asked.peer)
                self._inbound[ticket] = asked
        for ticket in admitted:
            del self._waiting[ticket]
        return admitted

    def _busy(self) -> set[str]:
        """Return the peers with which an exchange runs."""
        return self._outbound.union(asked.peer for asked in self._inbound.values())

    def _missing(self) -> set[str]:
        """Return the neighbors not met in this round that may still be: who waits in a later one is past it."""
        past = {asked.peer for asked in self._waiting.values() if asked.round > self._round}
        return set(self._neighbors) - self._met - past

    def _to_open(self) -> list[str]:
        opened = self._opened_here | (self._resting - self._never_called)
        wanted = self._missing() & opened - self._busy()
        return [name for name in self._neighbors if name in wanted]

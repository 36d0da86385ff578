"""Pace D-PSGD: after each step a node mixes with all its neighbors, once each (Lian et al. 2017, arXiv 1705.09056,
algorithm 1).

    x_i <- x_i + sum_j w_ij (x_j - x_i)          from the parameters after the same step on both sides of an edge

A round begins with a step and is over when every neighbor has been met, or is no neighbor any more: membership has
found it dead, or it has left, stopped or been set apart. The next step waits for it, and overlaps with nothing but its
own computing.

Each edge is one exchange, opened by the end that `opens` names. One that is opened to a node that is not in a round,
or that has met the opener in this round already, is kept waiting until the next: so both ends are always in the same
round of their edge, though the numbers of their steps may differ. Nobody waits in a circle: a node that waits in round
k waits for one in an earlier round of theirs, and the earliest waits for no one.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from adpsgd_node.core.exchange.outcome import Outcome

__all__ = [
    "Admit",
    "Asked",
    "DPsgd",
    "Event",
    "InboundEnded",
    "Mixed",
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


@dataclass(frozen=True, slots=True)
class Asked:
    """A peer has opened an exchange and waits."""

    peer: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A peer that waits has gone."""

    peer: str


@dataclass(frozen=True, slots=True)
class InboundEnded:
    """An exchange that was let in has ended, however it did."""

    peer: str


@dataclass(frozen=True, slots=True)
class OutboundEnded:
    peer: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Open:
    """Open the exchange with a neighbor; the peer may keep it waiting for as long as it takes."""

    peer: str


@dataclass(frozen=True, slots=True)
class Admit:
    """Go on with the exchange that a peer has opened."""

    peer: str


@dataclass(frozen=True, slots=True)
class Mixed:
    """The round after `step` is over: the next step may be applied."""

    step: int


Event = Stepped | Resumed | Paused | NeighborsChanged | Asked | Withdrawn | InboundEnded | OutboundEnded
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
        self._missing: set[str] = set()
        """Neighbors not met in this round."""
        self._outbound: set[str] = set()
        self._inbound: set[str] = set()
        self._waiting: list[str] = []
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    def handle(self, event: Event, now: float) -> tuple[Action, ...]:
        """Take one event."""
        match event:
            case Stepped(step):
                self._begin(step)
            case Resumed():
                self._paused = False
            case Paused():
                self._paused = True
            case NeighborsChanged(names, opened_here):
                self._neighbors, self._opened_here = names, opened_here
                self._missing.intersection_update(names)
                self._not_before = {name: at for name, at in self._not_before.items() if name in names}
                self._failures = {name: count for name, count in self._failures.items() if name in names}
            case Asked(peer):
                self._waiting.append(peer)
            case Withdrawn(peer):
                if peer in self._waiting:
                    self._waiting.remove(peer)
            case InboundEnded(peer):
                if peer in self._inbound:
                    self._inbound.remove(peer)
                    self._missing.discard(peer)
            case OutboundEnded(peer, outcome):
                self._outbound.discard(peer)
                self._met(peer, outcome, now)
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
            self._missing = set(self._neighbors)

    def _met(self, peer: str, outcome: Outcome, now: float) -> None:
        if outcome in MET:
            self._missing.discard(peer)
            self._failures.pop(peer, None)
            self._not_before.pop(peer, None)
            return
        failures = self._failures[peer] = self._failures.get(peer, 0) + 1
        longest = min(LARGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(failures - 1, 10))
        self._not_before[peer] = now + longest * self._rng.uniform(LEAST_JITTER, 1.0)

    def _act(self, now: float) -> tuple[Action, ...]:
        actions: list[Action] = [Admit(peer) for peer in self._admissible()]
        if self._in_round and not self._paused:
            due = [name for name in self._to_open() if self._not_before.get(name, 0.0) <= now]
            self._outbound.update(due)
            actions += [Open(name) for name in due]
        if self._in_round and (self._paused or not (self._missing or self._outbound or self._inbound)):
            self._in_round = False
            actions.append(Mixed(self._step))
        return tuple(actions)

    def _admissible(self) -> list[str]:
        """Take those who may go on out of the queue.

        In a round these are the neighbors not met yet, and whoever is no neighbor as far as is known here: news of a
        member reaches one end of an edge before the other.
        """
        if not (self._paused or self._in_round):
            return []
        admitted: list[str] = []
        for peer in self._waiting:
            met = peer in self._neighbors and peer not in self._missing
            if peer not in self._inbound | self._outbound and (self._paused or not met):
                admitted.append(peer)
                self._inbound.add(peer)
        for peer in admitted:
            self._waiting.remove(peer)
        return admitted

    def _to_open(self) -> list[str]:
        wanted = self._missing & self._opened_here - self._outbound - self._inbound
        return [name for name in self._neighbors if name in wanted]

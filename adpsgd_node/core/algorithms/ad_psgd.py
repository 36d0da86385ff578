"""Pace AD-PSGD: when to exchange, and with whom (Lian et al. 2018, arXiv 1710.06952, section 3.1, algorithm 1).

Each local step earns `exchanges_per_step` of credit; an exchange costs one. Credit is capped, so a slow network never
builds a backlog: the trainer does not wait, it merely averages less often. Neighbors are drawn uniformly. One outbound
exchange at a time (invariant 4). A busy neighbor costs nothing: another one is drawn at once; a broken or unreachable
one is left alone for a while that doubles, with jitter, so that those who lost it together do not come back together.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence
from dataclasses import dataclass

from adpsgd_node.core.exchange.outcome import Outcome

__all__ = [
    "Activity",
    "ActivityChanged",
    "AdPsgd",
    "Event",
    "ExchangeEnded",
    "Far",
    "NeighborRenewed",
    "NeighborsChanged",
    "StartExchange",
    "Stepped",
]

MAX_CREDIT = 2.0
"""Exchanges that may be owed at most (or `exchanges_per_step`, if larger)."""
FIRST_BUSY_RETRY_S = 0.005
"""Pause once every neighbor has said that it is busy; it doubles until one is not."""
LARGEST_BUSY_RETRY_S = 0.08
FIRST_BACKOFF_S = 0.25
LARGEST_BACKOFF_S = 10.0
LEAST_JITTER = 0.5
"""A backoff is drawn uniformly between this part of its length and the whole."""
IDLE_INTERVAL_S = 0.5
"""Pace of a node that has a model and no running trainer: it goes on mixing what it holds."""
AGREED_INTERVAL_S = 0.1
"""Pace while settling once no neighbor that can be met is known to be far."""


class Activity(enum.Enum):
    STOPPED = "stopped"
    """No model, poisoned, or shutting down: no exchange is started."""
    STEPPING = "stepping"
    IDLE = "idle"
    SETTLING = "settling"
    """The run has reached its target: exchange back to back until the models agree."""


@dataclass(frozen=True, slots=True)
class Stepped:
    steps: int


@dataclass(frozen=True, slots=True)
class NeighborsChanged:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NeighborRenewed:
    """A neighbor runs as another boot: what the earlier one did is not held against it."""

    name: str


@dataclass(frozen=True, slots=True)
class ActivityChanged:
    activity: Activity


@dataclass(frozen=True, slots=True)
class Far:
    """Neighbors not yet known to be close; while settling these are met first."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExchangeEnded:
    peer: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class StartExchange:
    peer: str


Event = Stepped | NeighborsChanged | NeighborRenewed | ActivityChanged | Far | ExchangeEnded


class AdPsgd:
    """The policy of one node. Feed it events, carry out its actions, call `expire` at `deadline`."""

    def __init__(self, *, exchanges_per_step: float, rng: random.Random) -> None:
        self._rate = exchanges_per_step
        self._rng = rng
        self._activity = Activity.STOPPED
        self._neighbors: tuple[str, ...] = ()
        self._far: tuple[str, ...] = ()
        self._credit = 0.0
        self._running: str | None = None
        self._busy: set[str] = set()
        self._failures: dict[str, int] = {}
        self._barred_until: dict[str, float] = {}
        self._not_before = 0.0
        self._busy_pause_s = FIRST_BUSY_RETRY_S

    def handle(self, event: Event, now: float) -> tuple[StartExchange, ...]:
        """Take one event; return at most one exchange to start."""
        match event:
            case Stepped(steps):
                self._credit = min(max(MAX_CREDIT, self._rate), self._credit + steps * self._rate)
                self._busy.clear()
            case NeighborsChanged(names):
                self._neighbors = names
                self._failures = {n: k for n, k in self._failures.items() if n in names}
                self._barred_until = {n: t for n, t in self._barred_until.items() if n in names}
            case NeighborRenewed(name):
                self._forgive(name)
            case ActivityChanged(activity):
                if activity is not self._activity:
                    self._activity, self._not_before = activity, now
            case Far(names):
                self._far = names
            case ExchangeEnded(peer, outcome):
                self._ended(peer, outcome, now)
        return self._start(now)

    def deadline(self) -> float | None:
        """Return when `expire` is due: something could start then, were nothing to happen before."""
        if self._running is not None or not self._neighbors or not self._wanted():
            return None
        barred = [self._barred_until.get(name, 0.0) for name in self._neighbors]
        return max(self._not_before, min(barred))

    def expire(self, now: float) -> tuple[StartExchange, ...]:
        """Start what waited for its time."""
        self._busy.clear()
        return self._start(now)

    def _wanted(self) -> bool:
        match self._activity:
            case Activity.STOPPED:
                return False
            case Activity.STEPPING:
                return self._credit >= 1.0
            case _:
                return True

    def _ended(self, peer: str, outcome: Outcome, now: float) -> None:
        self._running = None
        if outcome is Outcome.DECLINED:
            self._busy.add(peer)
            if self._activity is Activity.STEPPING:
                self._credit += 1.0
            if not self._free(now):
                self._not_before = now + self._busy_pause_s
                self._busy_pause_s = min(LARGEST_BUSY_RETRY_S, 2 * self._busy_pause_s)
            return
        self._busy.clear()
        self._busy_pause_s = FIRST_BUSY_RETRY_S
        if outcome in (Outcome.BROKEN, Outcome.UNREACHABLE, Outcome.REFUSED):
            failures = self._failures[peer] = self._failures.get(peer, 0) + 1
            longest = min(LARGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures - 1, 10))
            self._barred_until[peer] = now + longest * self._rng.uniform(LEAST_JITTER, 1.0)
            return
        self._forgive(peer)
        if self._activity is Activity.IDLE:
            self._not_before = now + IDLE_INTERVAL_S
        elif self._activity is Activity.SETTLING and not set(self._far).intersection(self._free(now)):
            self._not_before = now + AGREED_INTERVAL_S

    def _forgive(self, peer: str) -> None:
        self._failures.pop(peer, None)
        self._barred_until.pop(peer, None)

    def _start(self, now: float) -> tuple[StartExchange, ...]:
        if self._running is not None or not self._wanted() or now < self._not_before:
            return ()
        free = self._free(now)
        if self._activity is Activity.SETTLING and (far := [name for name in free if name in self._far]):
            free = far
        if not free:
            return ()
        peer = self._choose(free)
        self._running = peer
        if self._activity is Activity.STEPPING:
            self._credit -= 1.0
        return (StartExchange(peer),)

    def _free(self, now: float) -> Sequence[str]:
        """Return the neighbors that are neither busy nor left alone for a while."""
        if not self._barred_until:  # nearly always, and there may be thousands of neighbors
            return [n for n in self._neighbors if n not in self._busy] if self._busy else self._neighbors
        return [n for n in self._neighbors if n not in self._busy and self._barred_until.get(n, 0.0) <= now]

    def _choose(self, names: Sequence[str]) -> str:
        return names[self._rng.randrange(len(names))]

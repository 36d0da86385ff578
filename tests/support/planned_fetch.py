"""Carry out the plan of a fetch in virtual time, with donors that give a chunk every so many seconds, or fail."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from adpsgd_node.core.fetch import FetchConfig, FetchPlan
from adpsgd_node.core.fetch_event import (
    AskChunks,
    CancelRequest,
    ChunkArrived,
    DonorDropped,
    FetchDone,
    FetchEffect,
    FetchEvent,
    FetchFailed,
    FetchStarted,
    RangeEnded,
    RequestBroke,
    RequestRefused,
    RequestSpoilt,
)
from adpsgd_node.ids import NodeId

__all__ = ["PlannedFetch", "VirtualDonor", "node"]

MAX_EVENTS = 100_000


def node(name: str) -> NodeId:
    return NodeId(name, 1)


@dataclass
class VirtualDonor:
    """How one donor behaves."""

    chunk_s: float = 1.0
    """Seconds from one chunk to the next."""
    dies_after: float = math.inf
    """Chunks after which every stream of it breaks."""
    freezes_after: float = math.inf
    """Chunks after which nothing comes from it, while its streams stay open."""
    spoils: int = -1
    """The chunk that fails its digest."""
    busy_until: float = 0.0
    retry_after_s: float = 1.0
    given: int = 0


@dataclass
class PlannedFetch:
    """One fetch; `run` takes it to its end."""

    chunk_count: int
    donors: Mapping[str, VirtualDonor]
    config: FetchConfig = field(default_factory=FetchConfig)
    seed: int = 0
    now: float = 0.0
    end: FetchDone | FetchFailed | None = None
    asked: list[tuple[float, AskChunks]] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    sent: Counter[int] = field(default_factory=Counter)
    """How often each chunk came."""
    most_open: int = 0

    def __post_init__(self) -> None:
        nodes = [node(name) for name in self.donors]
        self.plan = FetchPlan(self.chunk_count, nodes, self.config, random.Random(self.seed))
        self._events: list[tuple[float, int, FetchEvent]] = []
        self._open: dict[int, AskChunks] = {}
        self._next: dict[int, int] = {}
        self._count = 0

    def run(self) -> FetchDone | FetchFailed:
        self._do(self.plan.handle(FetchStarted(), self.now))
        for _ in range(MAX_EVENTS):
            if self.end is not None:
                return self.end
            due = self.plan.deadline()
            if self._events and (due is None or self._events[0][0] <= due):
                self.now, _, event = heapq.heappop(self._events)
                self._happen(event)
            else:
                assert due is not None, "nothing is under way and nothing is due: the fetch would never end"
                assert due < math.inf
                self.now = max(self.now, due)
                self._do(self.plan.expire(self.now))
        raise AssertionError(f"no end after {MAX_EVENTS} events")

    def _happen(self, event: FetchEvent) -> None:
        assert not isinstance(event, FetchStarted)
        ask = self._open.get(event.request)
        if ask is None:
            return  # cancelled meanwhile
        if isinstance(event, ChunkArrived):
            self.sent[self._next[ask.request]] += 1
            self._next[ask.request] += 1
            self.donors[ask.donor.name].given += 1
            self._go_on(ask)
        else:
            del self._open[ask.request]
        self._do(self.plan.handle(event, self.now))

    def _do(self, effects: tuple[FetchEffect, ...]) -> None:
        for effect in effects:
            match effect:
                case AskChunks(request, donor, first, stop):
                    assert 0 <= first < stop <= self.chunk_count, effect
                    assert donor.name not in self.dropped
                    assert donor not in [ask.donor for ask in self._open.values()], "one request a donor"
                    self.asked.append((self.now, effect))
                    self._open[request] = effect
                    self._next[request] = first
                    self.most_open = max(self.most_open, len(self._open))
                    self._go_on(effect)
                case CancelRequest(request):
                    del self._open[request]
                case DonorDropped(donor, why):
                    self.dropped[donor.name] = why
                case FetchDone() | FetchFailed():
                    self.end = effect

    def _go_on(self, ask: AskChunks) -> None:
        """Let the donor do what it does next."""
        donor, number, index = self.donors[ask.donor.name], ask.request, self._next[ask.request]
        if self.now < donor.busy_until:
            self._later(0.0, RequestRefused(number, "two are being served", donor.retry_after_s))
        elif donor.given >= donor.dies_after:
            self._later(0.01, RequestBroke(number, "connection refused"))
        elif donor.given >= donor.freezes_after:
            return
        elif index >= ask.stop:
            self._later(0.0, RangeEnded(number))
        elif index == donor.spoils:
            self._later(donor.chunk_s, RequestSpoilt(number, f"chunk {index} fails its checksum"))
        else:
            self._later(donor.chunk_s, ChunkArrived(number))

    def _later(self, seconds: float, event: FetchEvent) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, event))

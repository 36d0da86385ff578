"""Plan one fetch of the model from several donors: who is asked for which chunks, and what becomes of a donor's rest.

    FRESH --AskChunks--> ASKED --range ended--> FREE --AskChunks--> ASKED
    ASKED --busy--> PAUSED until the donor's own time --> FREE
    ASKED --stream broke--> PAUSED (backoff); `attempts` in a row without a chunk --> DROPPED
    ASKED --spoilt, or silent for `silence_s`--> DROPPED

Chunks nobody is asked for are the pool. A free donor gets a share of the pool that shrinks with it (guided
self-scheduling: Polychronopoulos and Kuck, 1987), so a fast donor comes back for more, more often. Once the pool is
empty, a free donor takes the later half of the longest range under way; the `window` chunks next in line are never
taken, as they may be on their way. Of a range that short, a donor that has stalled is raced: the free donor is asked
for the rest as well, and whatever comes first counts. So at most a window of chunks per donor arrives twice, and
nothing that arrived is asked for again when its donor dies: only the rest goes back to the pool.

Pure: no clock, no I/O. The owner carries out the effects in order and reports back.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adpsgd_node.core.chunk_pool import ChunkPool
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

__all__ = ["FetchConfig", "FetchPlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """Limits of one fetch."""

    donors: int = 3
    """Donors asked at once; further ones are asked in place of those that fail or are busy."""
    window: int = 6
    """Chunks next in line that nobody takes from a donor, as they may be under way; also the shortest range asked."""
    largest_range: int = 256
    """Chunks asked for at once at most: a donor that is busy with one range can serve another joiner after it."""
    silence_s: float = 30.0
    """A donor from which no chunk came for so long is dropped. Longer than a chunk takes at the smallest budget."""
    stall_s: float = 2.0
    """A donor this long silent, and four times longer than a chunk takes on average, is raced once others are free."""
    attempts: int = 3
    """Streams of one donor in a row that may break without a chunk before it is dropped."""
    pause_min_s: float = 0.1
    """Shortest pause before a donor is asked again; doubles with each failure."""
    pause_max_s: float = 60.0
    """Longest pause, whatever a busy donor says."""
    busy_s: float = 300.0
    """Time without any chunk after which donors that only say they are busy are dropped."""


STALL_FACTOR = 4.0
JITTER = 0.25
"""A pause is lengthened by up to this part of it, so that joiners do not come back in step."""


@dataclass(slots=True)
class _Donor:
    id: NodeId
    place: int
    given: int = 0
    failures: int = 0
    ask_at: float = 0.0
    """Not before this time."""
    busy: str = ""
    """What it said when it last refused; empty once it serves."""
    dropped: str = ""
    asked: bool = False
    """A request to it is open."""


@dataclass(slots=True)
class _Request:
    donor: _Donor
    next: int
    """First chunk that has not come."""
    stop: int
    """End of what is still wanted."""
    asked_stop: int
    """End of what the donor was asked for."""
    heard_at: float
    raced: bool = False

    @property
    def rest(self) -> int:
        return self.stop - self.next


class FetchPlan:
    """The machine of one fetch: `chunk_count` chunks, and the donors in the order in which they are tried."""

    def __init__(self, chunk_count: int, donors: Sequence[NodeId], config: FetchConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self._donors = [_Donor(node, place) for place, node in enumerate(donors)]
        self._pool = ChunkPool(chunk_count)
        self._requests: dict[int, _Request] = {}
        self._number = 0
        self._ended = False
        self._chunk_at = 0.0
        """When the latest chunk came, from anyone."""
        self._intervals = 0.0
        self._arrivals = 0
        self.refetched = 0
        """Chunks that came although they were there already."""

    @property
    def given(self) -> dict[NodeId, int]:
        """Count the chunks used, by donor."""
        return {donor.id: donor.given for donor in self._donors if donor.given}

    @property
    def left(self) -> int:
        """Count the chunks that are still to come."""
        return self._pool.left

    def wanted(self, request: int) -> bool:
        """Tell whether the next chunk of `request` is one that has not come from another donor."""
        asked = self._requests.get(request)
        return asked is not None and asked.next < asked.stop and not self._pool.here(asked.next)

    def handle(self, event: FetchEvent, now: float) -> tuple[FetchEffect, ...]:
        if self._ended:
            return ()
        match event:
            case FetchStarted():
                self._chunk_at = now
                return self._go_on([], now)
            case ChunkArrived(number) if number in self._requests:
                return self._go_on(self._arrived(number, now), now)
            case RangeEnded(number) if number in self._requests:
                self._requests[number].donor.ask_at = now
                return self._go_on(self._close(number, cancel=False), now)
            case RequestRefused(number, why, retry_after_s) if number in self._requests:
                donor = self._requests[number].donor
                donor.busy = why
                donor.ask_at = now + self._pause(retry_after_s)
                return self._go_on(self._close(number, cancel=False), now)
            case RequestBroke(number, why) if number in self._requests:
                return self._go_on(self._broke(number, why, now), now)
            case RequestSpoilt(number, why) if number in self._requests:
                return self._go_on(self._drop(number, why, cancel=False), now)
            case _:
                return ()  # of a request that is over

    def deadline(self) -> float | None:
        """Say when something is due although nothing happens."""
        if self._ended:
            return None
        times = [self._silent_at(request) for request in self._requests.values()]
        waiting = [donor for donor in self._donors if not donor.dropped and not donor.asked]
        if waiting and len(self._requests) < self._config.donors:
            soonest = min(donor.ask_at for donor in waiting)
            if self._pool.unasked or any(self._spare(request) for request in self._requests.values()):
                times.append(soonest)
            else:
                times += [max(soonest, self._stalls_at(r)) for r in self._requests.values() if r.rest and not r.raced]
        if not self._requests:
            times.append(self._chunk_at + self._config.busy_s)
        return min(times, default=None)

    def expire(self, now: float) -> tuple[FetchEffect, ...]:
        if self._ended:
            return ()
        effects: list[FetchEffect] = []
        for number, request in list(self._requests.items()):
            if now >= self._silent_at(request):
                why = f"nothing came from it for {now - request.heard_at:.0f} s"
                effects += self._drop(number, why, cancel=True)
        if not self._requests and now >= self._chunk_at + self._config.busy_s:
            for donor in self._donors:
                if not donor.dropped:
                    effects += self._give_up(donor, f"busy for {self._config.busy_s:.0f} s: {donor.busy}")
        return self._go_on(effects, now)

    # What happened to one request

    def _arrived(self, number: int, now: float) -> list[FetchEffect]:
        request = self._requests[number]
        donor, index = request.donor, request.next
        request.next += 1
        self._intervals += now - request.heard_at
        self._arrivals += 1
        request.heard_at = self._chunk_at = now
        donor.failures, donor.busy = 0, ""
        if self._pool.arrive(index):
            donor.given += 1
        else:
            self.refetched += 1
        effects: list[FetchEffect] = []
        if request.rest == 0 and request.stop < request.asked_stop:
            effects += self._close(number, cancel=True)  # the donor would go on with what was taken from it
        for other, rival in list(self._requests.items()):
            # Of a race all may be here. The first look settles it for the others, which wait for their next chunk.
            if rival.rest and self._pool.here(rival.next) and not self._missing(rival):
                effects += self._close(other, cancel=True)
        return effects

    def _broke(self, number: int, why: str, now: float) -> list[FetchEffect]:
        donor = self._requests[number].donor
        donor.failures += 1
        if donor.failures >= self._config.attempts:
            return self._drop(number, f"{why} ({donor.failures} times in a row)", cancel=False)
        donor.ask_at = now + self._pause(self._config.pause_min_s * 2 ** (donor.failures - 1))
        return self._close(number, cancel=False)

    def _drop(self, number: int, why: str, *, cancel: bool) -> list[FetchEffect]:
        donor = self._requests[number].donor
        return [*self._close(number, cancel=cancel), *self._give_up(donor, why)]

    def _give_up(self, donor: _Donor, why: str) -> list[FetchEffect]:
        donor.dropped = why
        return [DonorDropped(donor.id, why)]

    def _close(self, number: int, *, cancel: bool) -> list[FetchEffect]:
        """End a request; what it did not bring, and nobody else was asked for, goes back to the pool."""
        request = self._requests.pop(number)
        request.donor.asked = False
        for other in self._requests.values():
            other.raced = other.raced and self._overlap(other, self._requests.values())
        self._pool.put_back(
            index
            for index in self._missing(request)
            if not any(other.next <= index < other.stop for other in self._requests.values())
        )
        return [CancelRequest(number)] if cancel else []

    # What is to be done next

    def _go_on(self, effects: list[FetchEffect], now: float) -> tuple[FetchEffect, ...]:
        while self._pool.left and len(self._requests) < self._config.donors:
            donor = self._free(now)
            chunks = self._share(now) if donor is not None else None
            if donor is None or chunks is None:
                break
            self._number += 1
            donor.asked = True
            self._requests[self._number] = _Request(donor, chunks.start, chunks.stop, chunks.stop, now)
            effects.append(AskChunks(self._number, donor.id, chunks.start, chunks.stop))
        if not self._pool.left and not self._requests:
            self._ended = True
            effects.append(FetchDone(max(self._donors, key=lambda donor: donor.given).id))
        elif all(donor.dropped for donor in self._donors):
            self._ended = True
            effects.append(FetchFailed(tuple((donor.id, donor.dropped) for donor in self._donors)))
        return tuple(effects)

    def _free(self, now: float) -> _Donor | None:
        """Choose whom to ask next: those that gave, before those not asked yet, before those that failed."""
        free = [d for d in self._donors if not d.dropped and not d.asked and d.ask_at <= now]
        return min(free, key=lambda donor: (donor.failures, not donor.given, donor.place), default=None)

    def _share(self, now: float) -> range | None:
        """Take chunks out of the pool, else out of the longest range under way, else those a stalled donor owes."""
        if self._pool.unasked:
            able = sum(not donor.dropped for donor in self._donors)
            share = math.ceil(self._pool.unasked / (2 * min(self._config.donors, able)))
            return self._pool.take(min(max(share, self._config.window), self._config.largest_range))
        longest = max(self._requests.values(), key=self._spare, default=None)
        if longest is not None and (spare := self._spare(longest)):
            longest.stop -= spare
            return range(longest.stop, longest.stop + spare)
        for request in self._requests.values():
            if request.rest and not request.raced and now >= self._stalls_at(request):
                request.raced = True
                return range(request.next, request.stop)
        return None

    def _spare(self, request: _Request) -> int:
        """Count the chunks that may be taken from the end of a range under way."""
        return max(0, min(request.rest // 2, request.rest - self._config.window))

    # Times and sets

    def _pause(self, seconds: float) -> float:
        bounded = min(max(seconds, self._config.pause_min_s), self._config.pause_max_s)
        return bounded * (1.0 + JITTER * self._rng.random())

    def _stalls_at(self, request: _Request) -> float:
        usual_s = self._intervals / self._arrivals if self._arrivals else 0.0
        return request.heard_at + max(self._config.stall_s, STALL_FACTOR * usual_s)

    def _silent_at(self, request: _Request) -> float:
        # With all its chunks here only the end of the stream is missing: that is not worth a long wait.
        return request.heard_at + (self._config.silence_s if request.rest else self._config.stall_s)

    def _missing(self, request: _Request) -> list[int]:
        return self._pool.missing(request.next, request.stop)

    @staticmethod
    def _overlap(request: _Request, others: Iterable[_Request]) -> bool:
        return any(o is not request and o.next < request.stop and request.next < o.stop for o in others)

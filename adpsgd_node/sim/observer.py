"""Compare what members believe with what is true: only a simulation knows both."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from adpsgd_node.core.membership import Member, MemberState
from adpsgd_node.ids import NodeId

__all__ = ["EXCUSE_S", "FalseDeath", "Observer"]

EXCUSE_S = 60.0
"""Seconds after a cut or a stop was mended in which a life may still be held dead for it: as long as the longest
suspicion lasts, and the news of it and of its end take."""

MAX_FALSE_DEATHS = 10_000
"""Most wrong declarations listed one by one; the lives they concern are counted all the same."""


@dataclass(frozen=True, slots=True)
class FalseDeath:
    """A member that ran and could be reached was held dead."""

    time: float
    observer: NodeId
    member: Member

    def __str__(self) -> str:
        return f"{self.time:.3f} s: {self.observer} holds {self.member}, which runs"


@dataclass(slots=True)
class _Crash:
    time: float
    unaware: set[NodeId]
    known_at: float | None = None


@dataclass(slots=True)
class Observer:
    """Notes wrong declarations of death, and how long right ones take to reach everyone."""

    running: set[NodeId] = field(default_factory=set)
    excused: dict[NodeId, float] = field(default_factory=dict)
    """Until when each life that is or was stopped or cut off may be held dead without being counted."""
    false_deaths: list[FalseDeath] = field(default_factory=list)
    wronged: set[NodeId] = field(default_factory=set)
    """The lives held dead by somebody while they ran and could be reached."""
    crashes: dict[NodeId, _Crash] = field(default_factory=dict)

    def started(self, life: NodeId) -> None:
        """Take note of a new life."""
        self.running.add(life)

    def excuse(self, lives: Iterable[NodeId]) -> None:
        """Take note that these lives are stopped or cut off: whoever holds them dead is not wrong."""
        self.excused.update(dict.fromkeys(lives, math.inf))

    def mended(self, lives: Iterable[NodeId], now: float) -> None:
        """Take note that these lives can be reached again: the excuse they have, if any, soon ends."""
        self.excused.update({life: now + EXCUSE_S for life in lives if self.excused.get(life) == math.inf})

    def stopped(self, life: NodeId, now: float, aware_of: Collection[NodeId]) -> None:
        """Take note of a crash; `aware_of` are the observers that hold the life dead already."""
        self.running.discard(life)
        self.crashes[life] = _Crash(now, self.running.difference(aware_of))
        for crash in self.crashes.values():  # one that crashed itself learns nothing more
            self._strike(crash, life, now)

    def changed(self, observer: NodeId, member: Member, before: Member | None, now: float) -> None:
        """Take note of a changed belief."""
        if before is not None and before.id in self.crashes and (not member.live or member.id != before.id):
            self._strike(self.crashes[before.id], observer, now)
        if member.state is MemberState.DEAD and member.id in self.running and now > self.excused.get(member.id, 0.0):
            self.wronged.add(member.id)
            if len(self.false_deaths) < MAX_FALSE_DEATHS:
                self.false_deaths.append(FalseDeath(now, observer, member))

    def detections_s(self) -> list[float | None]:
        """Return for each crash the seconds until everyone knew; None: somebody does not know yet."""
        return [None if crash.known_at is None else crash.known_at - crash.time for crash in self.crashes.values()]

    @staticmethod
    def _strike(crash: _Crash, observer: NodeId, now: float) -> None:
        crash.unaware.discard(observer)
        if not crash.unaware and crash.known_at is None:
            crash.known_at = now

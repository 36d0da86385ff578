"""Let one process stand still or end: what happens in it waits meanwhile, or never happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from adpsgd_node.core.exchange.frame import Settle, Settled
from adpsgd_node.core.exchange.rate import PeerRate
from adpsgd_node.sim.clock import Clock
from adpsgd_node.sim.membership import Life

if TYPE_CHECKING:
    from adpsgd_node.sim.stream import StreamEnd

__all__ = ["Process", "Watchdog"]


class Process:
    """One life's turns: messages and timers of a stopped process wait, those of one that ended are gone."""

    def __init__(self, life: Life, clock: Clock) -> None:
        self.life = life
        self.clock = clock
        self.vanished = False
        """Whether it went with its machine: nothing answers at its address then, not even with a reset."""
        self.ends: dict[StreamEnd, None] = {}
        """Its ends of streams, in the order in which they came about."""
        self.accept: Callable[[StreamEnd], None] = lambda end: end.cancel()
        """Serves a stream that a peer opened."""
        self.settle: Callable[[Settle], Settled] | None = None
        """Answers a peer's `Settle`."""
        self._late: list[Callable[[], object]] = []

    @property
    def running(self) -> bool:
        return self.life.running

    def hand(self, action: Callable[..., object], *arguments: object) -> None:
        """Let the process read something that has come: now, or once it goes on."""
        if not self.life.running:
            return
        if self.life.paused:
            self.life.unread.append(lambda: self.hand(action, *arguments))
        else:
            action(*arguments)

    def after(self, seconds: float, action: Callable[..., object], *arguments: object) -> None:
        """Set a timer of the process."""
        self.clock.after(seconds, self._ring, action, arguments)

    def ring_late(self) -> None:
        """Carry out the timers that came due while the process stood still."""
        late, self._late = self._late, []
        for action in late:
            action()

    def _ring(self, action: Callable[..., object], arguments: tuple[object, ...]) -> None:
        if not self.life.running:
            return
        if self.life.paused:
            self._late.append(lambda: self._ring(action, arguments))
        else:
            action(*arguments)


class Watchdog:
    """Complains once when a peer is too slow by the pace it has had before, as `daemon.pace` does."""

    def __init__(self, process: Process, rate: PeerRate, total_bytes: int, complain: Callable[[str], None]) -> None:
        self._process = process
        self._rate = rate
        self._total_bytes = total_bytes
        self._complain = complain
        self._limits = rate.deadlines(total_bytes, total_bytes)
        self._began = self._last = process.clock.now
        self._due: float | None = min(self._limits.idle_s, self._limits.whole_s) + self._began
        process.after(self._due - self._began, self._look)

    def heard(self) -> None:
        """Take note that something came."""
        if self._due is not None:
            now = self._process.clock.now
            self._rate.waited(now - self._last)
            self._last = now
            self._due = min(self._began + self._limits.whole_s, now + self._limits.idle_s)

    def stop(self, *, complete: bool) -> None:
        """Complain no more."""
        self._due = None
        if complete:
            self._rate.completed(self._total_bytes, self._process.clock.now - self._began)

    def _look(self) -> None:
        now = self._process.clock.now
        if self._due is None:
            return
        if now < self._due:
            self._process.after(self._due - now, self._look)
            return
        self._due = None
        self._rate.timed_out()
        whole = now >= self._began + self._limits.whole_s
        self._complain(
            f"not done after {self._limits.whole_s:.3g} s" if whole else f"no message for {self._limits.idle_s:.3g} s"
        )

"""Own one pure machine: hand it events and time, carry out its effects in order, never lose its timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

__all__ = ["MAX_PENDING_EVENTS", "Driver", "Machine"]

MAX_PENDING_EVENTS = 10_000
"""Events that the carrying out of one event may cause at most; more is a loop of our own making."""

EventT_contra = TypeVar("EventT_contra", contravariant=True)
EffectT_co = TypeVar("EffectT_co", covariant=True)


class Machine(Protocol[EventT_contra, EffectT_co]):
    """What every protocol in `core` looks like."""

    def handle(self, event: EventT_contra, now: float) -> Sequence[EffectT_co]: ...
    def deadline(self) -> float | None: ...
    def expire(self, now: float) -> Sequence[EffectT_co]: ...


class Driver(Generic[EventT_contra, EffectT_co]):
    """Drive one machine on the running event loop. `execute` carries out one effect and must not block."""

    def __init__(self, machine: Machine[EventT_contra, EffectT_co], execute: Callable[[EffectT_co], None]) -> None:
        self._machine = machine
        self._execute = execute
        self._events: deque[EventT_contra] = deque()
        self._running = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def post(self, event: EventT_contra) -> None:
        """Hand in one event. An event posted by an effect is handled after the effects before it."""
        if self._closed:
            return
        if len(self._events) >= MAX_PENDING_EVENTS:
            raise RuntimeError(f"{MAX_PENDING_EVENTS} events are pending for {type(self._machine).__name__}")
        self._events.append(event)
        self._run(())

    def carry_out(self, effects: Sequence[EffectT_co]) -> None:
        """Carry out effects that the machine gave outside `handle`, such as those of its start."""
        self._run(effects)

    def close(self) -> None:
        """Stop for good; later events are ignored."""
        self._closed = True
        self._events.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _run(self, effects: Sequence[EffectT_co]) -> None:
        if self._running:
            # We are inside `execute`: the outer call goes on with what was added.
            for effect in effects:
                self._execute(effect)
            return
        self._running = True
        try:
            for effect in effects:
                self._execute(effect)
            while self._events:
                event = self._events.popleft()
                for effect in self._machine.handle(event, self._now()):
                    self._execute(effect)
        finally:
            self._running = False
            self._arm()  # also when an effect failed: the timer must never be lost

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._machine.deadline()
        if deadline is not None and not self._closed:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if not self._closed:
            self._run(self._machine.expire(self._now()))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

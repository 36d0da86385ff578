"""Run asyncio code in virtual time: the clock jumps to the next timer whenever nothing is ready.

A test of timeouts, delays and heartbeats then takes no real time and gives the same result each time. Only for code
that waits on timers and on other tasks: no sockets, threads or subprocesses.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["DeadlockError", "VirtualClockLoop", "run_virtual"]

T = TypeVar("T")


class DeadlockError(AssertionError):
    """Every task waits, and no timer is left that could wake one."""


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` starts at 0 and moves only when nothing else can."""

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def describe_waiting(self) -> str:
        names = sorted(f"{task.get_name()} in {task.get_coro()}" for task in asyncio.all_tasks(self))
        return "; ".join(names) or "no task"


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting for `timeout` seconds, moves the loop's clock by them."""

    def __init__(self, loop: VirtualClockLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadlockError(
                f"at {self._loop.now:.6f} s nothing is ready and no timer is set: {self._loop.describe_waiting()}"
            )
        self._loop.now += timeout
        return []


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in virtual time; raises `DeadlockError` if it can never get there."""
    loop = VirtualClockLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        _cancel_all(loop)
        loop.close()


def _cancel_all(loop: VirtualClockLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())

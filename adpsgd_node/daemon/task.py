"""Own background tasks: each is named, and one that fails is reported, never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["MAX_TASKS", "Tasks"]

MAX_TASKS = 4096
"""Background tasks one node may run at once."""


class Tasks:
    """The background tasks of one owner. `fault` is told the name and the error of a task that fails."""

    def __init__(self, fault: Callable[[str, BaseException], None]) -> None:
        self._fault = fault
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `coroutine` in a task of this name."""
        if len(self._tasks) >= MAX_TASKS:
            coroutine.close()
            raise RuntimeError(f"more than {MAX_TASKS} background tasks: cannot start {name}")
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault(task.get_name(), error)

    def names(self) -> list[str]:
        return sorted(task.get_name() for task in self._tasks)

    async def cancel(self) -> None:
        """Cancel all and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

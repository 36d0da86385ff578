"""Find the tasks of an event loop that should long have ended.

Every wait of a node has a limit, and none of those of an exchange, a packet, a join or a call is longer than a minute.
What may be older is named here: tasks that live as long as their node or its trainer, and the settling with a peer that
is dead. Anything else that grows old hangs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["OLD_S", "Census"]

OLD_S = 75.0
"""Age beyond which a task that should end counts as hung: the longest of their own limits, the time for which the suite
stops a process, and a margin for a busy machine."""

LASTING = re.compile(
    r"main|supervise|trainer link.*|trainer exit|loop lag|join timeout|finish|poison timeout|remind to join"
    r"|settle exchange .*|checkpoint.*|resolve.*"
)
"""Names of tasks that may live as long as their node. A settling does while its peer is dead: whether one with a living
peer is left over, the suite finds by who is unsettled."""

LASTING_CODE = re.compile(
    r"App\.main|ScriptOutput\..*|_server_main_loop|Server\..*|AioServer\..*|RequestHandler\.start|_wait_for_shutdown.*"
    r"|server_coro_wrapper|_schedule_rpc_coro"
)
"""Code of lasting tasks to which nobody gives a name: of the libraries, and what reads a script's output."""


class Census:
    """The tasks of one loop and when each began. Counts those made after `install`."""

    def __init__(self) -> None:
        self._born: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        for task in asyncio.all_tasks(loop):
            self._born[task] = loop.time()
        loop.set_task_factory(self._make)

    def _make(self, loop: asyncio.AbstractEventLoop, code: Coroutine[Any, Any, Any], **options: Any) -> Any:
        task = asyncio.Task(code, loop=loop, **options)
        self._born[task] = loop.time()
        return task

    def hung(self, loop: asyncio.AbstractEventLoop, old_s: float = OLD_S) -> list[str]:
        """Describe the tasks older than `old_s` that should have ended."""
        found = []
        for task in asyncio.all_tasks(loop):
            age = loop.time() - self._born.get(task, loop.time())
            code = getattr(task.get_coro(), "__qualname__", repr(task.get_coro()))
            if age > old_s and not LASTING.fullmatch(task.get_name()) and not LASTING_CODE.fullmatch(code):
                found.append(f"{task.get_name()} ({code}), {age:.0f} s old")
        return sorted(found)

"""Find the tasks of an event loop that should long have ended.

Every wait of a node has a limit, and none of those of an exchange, a packet, a join or a call is longer than a minute.
What may be older is named here: tasks that live as long as their node or its trainer, and, while there are faults, the
settling with a peer that is dead. Anything else that grows old hangs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["OLD_S", "QUIET_S", "Census"]

OLD_S = 75.0
"""Age beyond which a task that should end counts as hung: the longest of their own limits, the time for which the suite
stops a process, and a margin for a busy machine."""

QUIET_S = 40.0
"""With no fault any more and all nodes training, whatever was begun earlier than this must have ended. The longest of
the limits that act then, in seconds: an exchange with a peer of unknown pace 31 (30, and a second for the 230 KB of the
model; 10 once it is known, and twice that after each miss), a connection whose other end is gone 30 (gRPC's keepalive:
20 to ask, 10 to wait), fetched chunks 30, a settling 17 (one call of 12 and the longest pause, 5), a look-up 5, a join
4, a packet 2. The rest is a margin."""

LASTING = re.compile(
    r"supervise|trainer link.*|trainer exit|loop lag|remind to join|checkpoints|checkpoint now and then"
)
"""Names of tasks that may live as long as their node or its trainer: they serve the script, measure the loop, and write
a checkpoint now and then. `remind to join` sleeps for a minute after each start of a script."""

WAITING = re.compile(r"settle exchange .*")
"""Names of tasks that may wait for as long as their peer is dead or cut off: no limit while there are faults."""

LASTING_CODE = re.compile(
    r"App\.main|ScriptOutput\..*|_server_main_loop|Server\..*|AioServer\..*|RequestHandler\.start|_wait_for_shutdown.*"
    r"|server_coro_wrapper|_schedule_rpc_coro"
)
"""Code of lasting tasks to which nobody gives a name: of the libraries, and what reads a script's output."""


MAX_LATE = 100


class Census:
    """The tasks of one loop, when each began and by which code. Counts those made after `install`."""

    def __init__(self) -> None:
        self._born: WeakKeyDictionary[asyncio.Task[Any], tuple[float, str]] = WeakKeyDictionary()
        self._late: list[str] = []

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        for task in asyncio.all_tasks(loop):
            self._note(task)
        loop.set_task_factory(self._make)

    def _make(self, loop: asyncio.AbstractEventLoop, code: Coroutine[Any, Any, Any], **options: Any) -> Any:
        task = asyncio.Task(code, loop=loop, **options)
        self._note(task)
        task.add_done_callback(self._ended)
        return task

    def _note(self, task: asyncio.Task[Any]) -> None:
        code = task.get_coro()  # compiled code forgets its name when it ends
        self._born[task] = task.get_loop().time(), getattr(code, "__qualname__", None) or repr(code)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Note a task that had lived too long, also when it is the loop's own end that has cancelled it."""
        began_s, code = self._born[task]
        age_s, name = task.get_loop().time() - began_s, task.get_name()
        if age_s > OLD_S and not _lasts(name, code) and not WAITING.fullmatch(name) and len(self._late) < MAX_LATE:
            self._late.append(f"{name} ({code}), ended {age_s:.0f} s old")

    def begun_s(self, loop: asyncio.AbstractEventLoop) -> dict[str, float]:
        """Describe the tasks that must end some time, each with the loop's time when it began."""
        found: dict[str, float] = {}
        for task in asyncio.all_tasks(loop):
            began_s, code = self._born[task]
            if not _lasts(task.get_name(), code):
                text = f"{task.get_name()} ({code})"
                found[text] = min(began_s, found.get(text, began_s))
        return found

    def hung(self, loop: asyncio.AbstractEventLoop, old_s: float = OLD_S) -> list[str]:
        """Describe the tasks older than `old_s` that should have ended, whether there are faults or not."""
        now = loop.time()
        tasks = self.begun_s(loop).items()
        old = [f"{text}, {now - s:.0f} s old" for text, s in tasks if now - s > old_s and not WAITING.match(text)]
        return sorted([*old, *self._late])

    def late(self) -> list[str]:
        """Describe the tasks that had lived too long when they ended."""
        return sorted(self._late)


def _lasts(name: str, code: str) -> bool:
    return bool(LASTING.fullmatch(name) or LASTING_CODE.fullmatch(code))

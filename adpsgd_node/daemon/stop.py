"""Take up what tells a node to leave: SIGTERM, SIGINT, or `adpsgd-node drain`; and how urgently."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

__all__ = ["Stop"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether this node is to leave. The first word begins it, a second signal hurries it, a third ends the process."""

    def __init__(self, timeout_s: float, *, notify: Callable[[], None], kill: Callable[[], None]) -> None:
        """Take how long leaving may take, whom to wake at each word, and what kills the script before a sudden end."""
        self.asked = False
        self.hurried = False
        self.cause = ""
        """Who asked first, for the log."""
        self.exit_code = 0
        self._timeout_s = timeout_s
        self._deadline = 0.0
        self._notify = notify
        self._kill = kill

    def watch_signals(self) -> None:
        """Have signals of this process come here."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)

    def ask(self, timeout_s: float, cause: str) -> float:
        """Begin to leave within `timeout_s` (0: as configured), unless it was asked before; returns what is left."""
        now = asyncio.get_running_loop().time()
        deadline = now + (timeout_s or self._timeout_s)
        if not self.asked:
            self.asked, self.cause, self._deadline = True, cause, deadline
            self._notify()
        return max(0.0, self._deadline - now)

    def left_s(self) -> float:
        """Return the seconds that are left for leaving."""
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def _on_signal(self, number: signal.Signals) -> None:
        name = signal.Signals(number).name
        if self.hurried:
            self._kill()
            os._exit(128 + number)
        if self.asked:
            self.hurried, self.exit_code = True, 128 + number
            self._notify()
            return
        if number == signal.SIGINT:
            self.exit_code = 128 + number
        self.ask(0.0, name)

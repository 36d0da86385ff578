"""Let a signal end a demo in order."""

from __future__ import annotations

import asyncio
import signal

__all__ = ["Interruption"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Let the first SIGINT or SIGTERM cancel a task; later ones are ignored, for its nodes are being ended."""

    def __init__(self, task: asyncio.Future[None]) -> None:
        self._task = task
        self.signal_number: int | None = None

    def __enter__(self) -> Interruption:
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._interrupt, number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _interrupt(self, number: int) -> None:
        if self.signal_number is None:
            self.signal_number = number
            self._task.cancel()

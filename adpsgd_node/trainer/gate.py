"""Let a step wait for what the daemon does for it, as long as the daemon lives; AD-PSGD never does."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable

from adpsgd_node.trainer.link import Link

__all__ = ["Gate"]

LOOK_MS = 200
"""How often a waiting step looks whether its daemon still lives, and what else may be asked."""


class Gate:
    """A wait for the daemon's word. `event`: descriptor of an eventfd that it writes to; it is taken over."""

    def __init__(self, event: int, link: Link) -> None:
        self._event = event
        self._link = link
        self._poll = select.poll()
        self._poll.register(event, select.POLLIN)

    def wait(self, opened: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Return once `opened()`; calls `meanwhile` now and then until it is.

        Raises `DaemonLostError`, or the error that the daemon sent.
        """
        while not opened():
            if self._poll.poll(LOOK_MS):
                with contextlib.suppress(BlockingIOError):  # somebody else read it first: `opened` is what counts
                    os.eventfd_read(self._event)
                continue
            self._link.check()
            meanwhile()

    def close(self) -> None:
        """Give the descriptor back; may be repeated."""
        if self._event >= 0:
            os.close(self._event)
            self._event = -1

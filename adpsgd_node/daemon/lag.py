"""Measure how late the event loop is: a node that is late itself must not take others for dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["measure_lag"]

INTERVAL_S = 0.5


async def measure_lag(lagged: Callable[[float], None]) -> None:
    """Tell, for ever, how many seconds later than due the loop woke this task."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)  # what it lasts beyond that is what is measured
        lagged(max(0.0, loop.time() - due))

"""Stop work before a chosen line of chosen modules, like a kill, or have something else happen there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

__all__ = ["Interrupted", "before_line", "run_until_line"]


class Interrupted(BaseException):
    pass


def run_until_line(work: Callable[[], object], ordinal: int, *modules: ModuleType) -> bool:
    """Run `work` and stop it before the `ordinal`-th line that it runs of `modules`; True if it ended."""

    def interrupt() -> None:
        raise Interrupted

    try:
        before_line(work, ordinal, interrupt, *modules)
    except Interrupted:
        return False
    return True


def before_line(work: Callable[[], object], ordinal: int, meanwhile: Callable[[], None], *modules: ModuleType) -> bool:
    """Run `work`, and `meanwhile` before the `ordinal`-th line that `work` runs of `modules`; tell if it came to it."""
    files = {module.__file__ for module in modules}
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            seen += 1
            if seen == ordinal + 1:
                meanwhile()  # not traced itself: Python switches tracing off within a trace function
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return seen > ordinal

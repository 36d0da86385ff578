"""Write down how a script's loss goes down, for plots and comparisons: one JSON object a line."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

__all__ = ["HISTORY_FILE", "LossHistory"]

HISTORY_FILE = "history.jsonl"

LEAST_INTERVAL_S = 0.1
FRACTION = 1e-4
"""Lines are no closer than this part of the time that has passed: 10,000 of them for each e-fold of a long run."""


class LossHistory:
    """A file of `step` (this node's), `samples_total` (of the whole run), `elapsed_s` and `loss`; a context manager.

    `elapsed_s` counts from the start of the script; `loss` is the mean of the steps since the line before, and null
    where it is not finite. A script that goes on from an earlier step appends.
    """

    def __init__(self, path: Path, *, step: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """`step`: how many steps this node has behind it; 0 begins the file anew."""
        self._file: TextIO = path.open("a" if step else "w", buffering=1)
        self._clock = clock
        self._began = clock()
        self._due_s = 0.0
        self._losses: list[float] = []
        self._last = (0, 0)

    def add(self, step: int, samples_total: int, loss: float) -> None:
        """Note one step; it is written with the next line that is due."""
        self._losses.append(loss)
        self._last = (step, samples_total)
        if self._clock() - self._began >= self._due_s:
            self._write()

    def __enter__(self) -> LossHistory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._losses:
            self._write()
        self._file.close()

    def _write(self) -> None:
        elapsed_s = self._clock() - self._began
        loss = math.fsum(self._losses) / len(self._losses) if all(map(math.isfinite, self._losses)) else None
        step, samples_total = self._last
        line = {"step": step, "samples_total": samples_total, "elapsed_s": round(elapsed_s, 6), "loss": loss}
        self._file.write(json.dumps(line) + "\n")
        self._losses = []
        self._due_s = elapsed_s + max(LEAST_INTERVAL_S, FRACTION * elapsed_s)

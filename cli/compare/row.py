"""Measure one run by what its nodes wrote: throughput, losses, accuracy."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from adpsgd_cli.compare.plan import Case, ComparePlan
from adpsgd_cli.demo.cluster import NodeProcess
from adpsgd_cli.demo.verdict import read_result, widest_distance
from adpsgd_node.errors import AdpsgdError
from adpsgd_node.setting import choice
from adpsgd_node.tasks.history import HISTORY_FILE

__all__ = ["Line", "Row", "judge", "read_history"]

FIRST_PART, LAST_PART = 0.1, 0.95
"""Throughput is taken between these parts of the samples that were done: without start and end."""
FINAL_PART = 0.9
"""The final loss is the mean over the samples after this part."""
MAX_LINE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a node's loss history. `elapsed_s`: since its script began."""

    elapsed_s: float
    samples_total: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one run came to; None where it cannot be said."""

    algorithm: str
    variant: str
    """Label of what was changed about the algorithm; empty when nothing was."""
    straggler: str
    """`none`, by how much the last node was slower, or `link` and by how much its link was."""
    seed: int
    samples_per_s: float | None
    ideal_fraction: float | None
    """`samples_per_s` over what nodes would do that never wait."""
    final_loss: float | None
    test_accuracy: float | None
    test_loss: float | None
    samples_total: int
    train_s: float | None
    """From the first line of a history to the last."""
    consensus_distance: float | None
    complete: bool
    """False when the time limit ended the run."""

    @property
    def title(self) -> str:
        return self.algorithm + (f" ({self.variant})" if self.variant else "")

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def judge(plan: ComparePlan, case: Case, nodes: Sequence[NodeProcess], *, complete: bool) -> Row:
    """Put the row of one run together. Raises `AdpsgdError` when a file cannot be read."""
    histories = [read_history(node.folder / HISTORY_FILE) for node in nodes]
    fast = histories[0]  # the straggler is the last
    rate = _throughput(fast)
    results = [read_result(node.result) for node in nodes] if complete else []
    accuracies = [result["test_accuracy"] for result in results if "test_accuracy" in result]
    losses = [result["test_loss"] for result in results if "test_loss" in result]
    return Row(
        algorithm=choice(case.algorithm),
        variant=case.variant.label if case.variant else "",
        straggler=str(case.condition),
        seed=case.seed,
        samples_per_s=rate,
        ideal_fraction=None if rate is None else rate / plan.ideal_samples_per_s(case.condition),
        final_loss=_final_loss(histories),
        test_accuracy=min(accuracies, default=None),  # of several equal models the worst figure is told
        test_loss=max(losses, default=None),
        samples_total=max((line.samples_total for history in histories for line in history), default=0),
        train_s=fast[-1].elapsed_s - fast[0].elapsed_s if fast else None,
        consensus_distance=widest_distance([node.model for node in nodes]) if complete else None,
        complete=complete,
    )


def read_history(path: Path) -> list[Line]:
    """Read a node's loss history; empty when there is none. Raises `AdpsgdError` naming a line that is none."""
    lines: list[Line] = []
    try:
        texts = path.read_text().splitlines()
    except FileNotFoundError:
        return lines
    except (OSError, ValueError) as error:
        raise AdpsgdError(f"cannot read {path}: {error}") from None
    for number, text in enumerate(texts, 1):
        try:
            entry = json.loads(text[:MAX_LINE_BYTES])
            loss = math.nan if entry["loss"] is None else float(entry["loss"])
            lines.append(Line(float(entry["elapsed_s"]), int(entry["samples_total"]), loss))
        except (ValueError, KeyError, TypeError):
            if number < len(texts):  # the last one may be cut off: its node was killed
                raise AdpsgdError(f"{path}, line {number} is no line of a loss history") from None
    return lines


def _throughput(history: Sequence[Line]) -> float | None:
    """Return the samples of the whole run per second, by one node's history; None when it is too short to say."""
    last = history[-1].samples_total if history else 0
    middle = [line for line in history if FIRST_PART * last <= line.samples_total <= LAST_PART * last]
    if len(middle) < 2 or middle[-1].elapsed_s <= middle[0].elapsed_s:
        return None
    return (middle[-1].samples_total - middle[0].samples_total) / (middle[-1].elapsed_s - middle[0].elapsed_s)


def _final_loss(histories: Sequence[Sequence[Line]]) -> float | None:
    last = max((line.samples_total for history in histories for line in history), default=0)
    final = [line.loss for history in histories for line in history if line.samples_total >= FINAL_PART * last]
    finite = [loss for loss in final if math.isfinite(loss)]
    return statistics.fmean(finite) if finite and len(finite) == len(final) else None

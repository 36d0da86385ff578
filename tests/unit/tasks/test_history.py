"""What a script writes down of its loss, on a clock of the test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adpsgd_node.tasks.history import HISTORY_FILE, LEAST_INTERVAL_S, LossHistory


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / HISTORY_FILE


def test_a_line_tells_step_samples_seconds_and_loss(path: Path) -> None:
    clock = Clock()
    with LossHistory(path, step=0, clock=clock) as history:
        clock.now += 2.0
        history.add(1, 96, 0.5)
        assert lines(path) == [{"step": 1, "samples_total": 96, "elapsed_s": 2.0, "loss": 0.5}]


def test_quick_steps_share_a_line_with_their_mean_and_the_last_is_not_lost(path: Path) -> None:
    clock = Clock()
    with LossHistory(path, step=0, clock=clock) as history:
        for step in range(1, 8):
            history.add(step, 32 * step, float(step))
            clock.now += LEAST_INTERVAL_S / 2.5
    told = [(line["step"], line["loss"]) for line in lines(path)]
    assert told == [(1, 1.0), (4, 3.0), (7, 6.0)]


def test_a_long_run_does_not_fill_the_disk(path: Path) -> None:
    clock = Clock()
    with LossHistory(path, step=0, clock=clock) as history:
        clock.now += 1e6
        for step in range(1, 1001):
            history.add(step, step, 1.0)
            clock.now += 1.0
    assert 8 <= len(lines(path)) <= 12


def test_a_loss_that_is_not_finite_is_null_and_the_file_stays_json(path: Path) -> None:
    with LossHistory(path, step=0, clock=Clock()) as history:
        history.add(1, 1, float("nan"))
    assert "NaN" not in path.read_text()
    assert lines(path)[0]["loss"] is None


def test_a_new_run_begins_the_file_anew_and_one_that_goes_on_appends(path: Path) -> None:
    for step, expected in ((0, [1]), (0, [1]), (1, [1, 2])):
        with LossHistory(path, step=step, clock=Clock()) as history:
            history.add(step + 1, 32, 1.0)
        assert [line["step"] for line in lines(path)] == expected


def test_a_script_that_fails_leaves_what_it_had(path: Path) -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="stop"), LossHistory(path, step=0, clock=clock) as history:
        history.add(1, 1, 2.0)
        history.add(2, 2, 1.0)
        raise ValueError("stop")
    assert [line["step"] for line in lines(path)] == [1, 2]

"""Hurt nodes in memory, on any machine: mass is kept, exchanges are settled, views meet, training reaches its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.fault import draw_schedule
from chaos.twin_run import TWIN_KINDS, run_twins

NODES = 5
SECONDS = 40.0


@pytest.mark.parametrize("seed", [1, 2])
def test_nodes_in_memory_survive_random_faults(seed: int, tmp_path: Path) -> None:
    schedule = draw_schedule(seed, NODES, SECONDS, TWIN_KINDS)
    result = run_twins(schedule, NODES, seed, SECONDS, tmp_path)
    assert result.problems == []
    assert sum(result.faults.values()) == len(schedule)
    assert result.mass_drift < 1e-6, "rounding alone stays below a tenth of that"
    assert result.apart < 5e-3
    assert result.error < 0.1
    assert result.outcomes["initiator complete"] > 100
    assert result.settled["settled"] > 3, "no exchange broke in its middle: nothing was put to the test"

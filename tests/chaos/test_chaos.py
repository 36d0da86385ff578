"""Hurt real nodes at random while they train: all that must hold, holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.plan import ChaosPlan
from chaos.suite import run_suite

SEED = 7


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_five_real_nodes_survive_a_minute_of_random_faults(tmp_path: Path) -> None:
    result = await run_suite(ChaosPlan(nodes=5, minutes=1.0, seed=SEED, output=tmp_path / "run"))
    assert result["reasons"] == []
    assert result["mass_drift_relative"] <= 1e-5
    assert result["views"] == 1
    assert result["hung_tasks"] == 0
    assert result["unsettled_with_live_peers"] == 0
    assert result["test_accuracy"] >= 0.97
    assert result["faults"] >= 8

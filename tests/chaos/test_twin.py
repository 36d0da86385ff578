"""Hurt nodes in memory, on any machine: mass is kept, exchanges are settled, views meet, training reaches its end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from adpsgd_node.core.exchange.initiator import InitiatorEnded
from adpsgd_node.daemon.initiate import Initiation
from chaos.fault import LEAST_ROLLING_S, draw_schedule
from chaos.twin_run import TWIN_KINDS, TwinResult, run_twins

NODES = 5

pytestmark = pytest.mark.timeout(600)  # half a minute of computing for the longest, and others may want the processors


@pytest.mark.parametrize(("seed", "seconds"), [(1, 40.0), (2, LEAST_ROLLING_S)])
def test_nodes_in_memory_survive_random_faults(seed: int, seconds: float, tmp_path: Path) -> None:
    schedule = draw_schedule(seed, NODES, seconds, TWIN_KINDS)
    result = run_twins(schedule, NODES, seed, seconds, tmp_path)
    assert_all_is_well(result)
    assert sum(result.faults.values()) == len(schedule)
    assert result.settled["settled"] > 3, "no exchange broke in its middle: nothing was put to the test"
    if seconds >= LEAST_ROLLING_S:
        assert set(result.faults) == {kind.value for kind in TWIN_KINDS}


def test_a_node_in_memory_whose_exchange_never_ends_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counterpart: one exchange waits for ever, where nothing but time would tell."""
    receive, hung = Initiation._receive_all, []

    async def hang(self: Initiation, sender: asyncio.Task[None]) -> InitiatorEnded:
        if not hung:
            hung.append(self)
            await asyncio.Event().wait()
        return await receive(self, sender)

    monkeypatch.setattr(Initiation, "_receive_all", hang)
    result = run_twins((), NODES, 1, 1.0, tmp_path)
    assert hung
    assert [problem for problem in result.problems if problem.startswith("hung: exchange with ")], result.problems


def assert_all_is_well(result: TwinResult) -> None:
    assert result.problems == []
    assert result.mass_drift < 1e-6, "rounding alone stays below a tenth of that"
    assert result.apart < 5e-3
    assert result.error < 0.1
    assert result.outcomes["initiator complete"] > 100

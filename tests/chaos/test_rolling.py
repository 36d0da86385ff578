"""Restart every node, seeds included, one at a time while all train: the run loses nothing by it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable

import pytest

from chaos.cluster import Cluster
from chaos.life import Life

NODES = 5
START_LIMIT_S = 120.0
WARM_UP_LIMIT_S = 120.0
LEARNT_LOSS = 0.7
"""Far below the loss of a model that knows nothing: ln 10 = 2.3."""
END_LIMIT_S = 40.0
TRAINS_AGAIN_S = 15.0
"""From a daemon's start to a step of its trainer, which must import PyTorch first."""
USUAL_IMPORT_S = 4.0
"""What that import takes at most where nothing else wants the processors; the rest is the machine's affair."""
FIRST_STEPS = 10
LONG_S = 600.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def losses(life: Life) -> list[float]:
    """Read the losses that a life's trainer has logged, one a step."""
    path = life.folder / "loss.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def import_s() -> float:
    """Measure how long importing PyTorch takes now, beside the nodes."""
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import torch, sklearn.datasets")
    await process.wait()
    return time.monotonic() - began_s


def recent_loss(cluster: Cluster) -> float:
    """Return the mean loss of the last steps of all nodes."""
    last = [loss for life in cluster.current for loss in losses(life)[-FIRST_STEPS:]]
    return sum(last) / len(last)


async def test_a_rolling_restart_of_all_nodes_loses_nothing(cluster_of: Callable[[int], Cluster]) -> None:
    cluster = cluster_of(NODES)
    await cluster.start_all(START_LIMIT_S)
    cluster.set_pace(0.9, 0.9, LONG_S)
    for life in cluster.current:
        await cluster.wait_for(life, lambda s: s.loss < LEARNT_LOSS, WARM_UP_LIMIT_S, "it has learnt nothing")

    samples = 0
    for host in range(NODES):
        old = cluster.current[host]
        before = await cluster.wait_for(
            old, lambda s, least=samples: s.samples_total >= least, 10.0, "the run's progress went back"
        )
        samples, loss_before = before.samples_total, recent_loss(cluster)
        old.doomed = "rolling restart"
        old.signal(signal.SIGTERM)
        assert await cluster.ended(old, END_LIMIT_S) == 0, old.errors()

        excess_s, began_s = max(0.0, await import_s() - USUAL_IMPORT_S), time.monotonic()
        new = cluster.start(host)
        status = await cluster.training(new, START_LIMIT_S)
        took_s = time.monotonic() - began_s
        assert took_s < TRAINS_AGAIN_S + 2 * excess_s, f"{new} trained {took_s:.1f} s after its start, {excess_s=:.1f}"
        assert status.samples_total >= samples, "the new life knows less of the run than the old one did"
        assert not new.from_scratch()
        await cluster.wait_for(new, lambda _, new=new: len(losses(new)) >= FIRST_STEPS, 60.0, "it does not go on")
        first = losses(new)[:FIRST_STEPS]
        mean = sum(first) / len(first)
        assert mean < 2 * loss_before + 0.1, f"the loss jumped from {loss_before:.3f} to {first}"
        print(f"{new} trained {took_s:.1f} s after its start, loss {loss_before:.3f} -> {mean:.3f}")

    assert not cluster.reasons

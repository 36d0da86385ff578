"""Restart every node, seeds included, one at a time while all train: the run loses nothing by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from adpsgd_node.core.membership.member import Phase
from chaos.cluster import Cluster
from chaos.life import Life
from chaos.view import ask_all

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
MOST_LOSS_RISE, LOSS_NOISE = 1.2, 0.1
"""A new life's first steps against the last steps of all before it: 0.80 to 1.02 times as much was seen in ten
restarts, and the mean of ten batches is itself uncertain by about 0.05."""
LOOK_S = 0.1
LEAST_LOOKS = 10
"""How often every life must have been looked at while it trained, for the look to count."""
LONG_S = 600.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Follower:
    """Asks every node over and over how far the run is, and keeps what each name told last while it trained."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.told: dict[str, int] = {}
        """By name: a new life must know what the one before it told."""
        self.looks: Counter[Life] = Counter()
        self.fell: list[str] = []

    async def follow(self) -> None:
        while True:
            for life, status in (await ask_all(self._cluster.current)).items():
                if status is not None and status.self_member.phase is Phase.TRAINING:
                    self.hear(life, status.samples_total)
            await asyncio.sleep(LOOK_S)

    def hear(self, life: Life, samples: int) -> None:
        before = self.told.get(life.name, 0)
        if samples < before:
            self.fell.append(f"{life} told {samples} samples after {before}")
        self.told[life.name] = samples
        self.looks[life] += 1


@contextlib.asynccontextmanager
async def following(cluster: Cluster) -> AsyncIterator[Follower]:
    """Follow the nodes' progress; what goes wrong with that is raised at the end."""
    follower = Follower(cluster)
    task = asyncio.create_task(follower.follow(), name="follower")
    try:
        yield follower
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


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
    async with following(cluster) as follower:
        for life in cluster.current:
            await cluster.wait_for(life, lambda s: s.loss < LEARNT_LOSS, WARM_UP_LIMIT_S, "it has learnt nothing")
        for life in cluster.current:
            await followed(cluster, follower, life)
        for host in range(NODES):
            await restart(cluster, host)
            await followed(cluster, follower, cluster.current[host])
    print(f"followed {len(follower.looks)} lives, {min(follower.looks.values())} looks or more; told {follower.told}")
    assert follower.fell == []
    assert len(follower.looks) == 2 * NODES
    assert not cluster.reasons


async def followed(cluster: Cluster, follower: Follower, life: Life) -> None:
    """Wait until a life's progress has been seen while it trained."""
    await cluster.wait_for(life, lambda _: follower.looks[life] >= LEAST_LOOKS, 60.0, "its progress is not seen")


async def restart(cluster: Cluster, host: int) -> None:
    """End one node in good order and start it again: it goes on where the run is."""
    old, loss_before = cluster.current[host], recent_loss(cluster)
    old.doomed = "rolling restart"
    old.signal(signal.SIGTERM)
    assert await cluster.ended(old, END_LIMIT_S) == 0, old.errors()

    excess_s, began_s = max(0.0, await import_s() - USUAL_IMPORT_S), time.monotonic()
    new = cluster.start(host)
    await cluster.training(new, START_LIMIT_S)
    took_s = time.monotonic() - began_s
    assert took_s < TRAINS_AGAIN_S + 2 * excess_s, f"{new} trained {took_s:.1f} s after its start, {excess_s=:.1f}"
    assert not new.from_scratch()
    await cluster.wait_for(new, lambda _: len(losses(new)) >= FIRST_STEPS, 60.0, "it does not go on")
    first = losses(new)[:FIRST_STEPS]
    mean = sum(first) / len(first)
    print(f"{new} trained {took_s:.1f} s after its start, loss {loss_before:.3f} -> {mean:.3f}")
    assert mean < MOST_LOSS_RISE * loss_before + LOSS_NOISE, f"the loss jumped from {loss_before:.3f} to {first}"

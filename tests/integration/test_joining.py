"""A node joins from several donors, and a donor that dies meanwhile costs next to nothing."""

from __future__ import annotations

import re
import signal

import numpy as np
import pytest

from adpsgd_node.core.fetch import FetchConfig
from adpsgd_node.core.membership.member import Phase
from adpsgd_node.plane import Layout, Plane
from support.http_page import page
from support.node_process import NodeProcess, Nodes, trainer
from support.numpy_trainer import tensors

DIM = 120_000
CHUNK_BYTES = 4096
SLOW, FAST = 128 << 10, 1 << 20
"""Bytes a second that a donor gives: the model has 480 kB."""
CHUNKS = len(Layout.build(tensors(DIM), CHUNK_BYTES).chunks)
WINDOW = FetchConfig().window
OPTIONS = ["--epochs=100000", f"--chunk-bytes={CHUNK_BYTES}"]
SCRIPT = [f"--dim={DIM}", "--steps-per-s=5", "--lr=0", "--drift=0.01"]
"""With drift every parameter of a trained node differs from the zeros that a joiner begins with."""


@pytest.mark.slow
async def test_a_joiner_whose_donor_is_killed_half_way_finishes_from_another(nodes: Nodes) -> None:
    group = await _run_of_two(nodes, SLOW)
    before = {node.name: await _given(node) for node in group}
    joiner = await _join(nodes, group, f"--donor-bytes-per-s={SLOW}", "--donors=1")
    await joiner.says("fetching the model")
    plane = joiner.hold_plane(tensors(DIM), CHUNK_BYTES)
    await joiner.until(lambda: _here(plane) >= CHUNKS // 2, "half of the model")
    given = {node.name: await _given(node) - before[node.name] for node in group}
    dying, other = sorted(group, key=lambda node: -given[node.name])
    assert given[other.name] == 0, "with --donors=1 one donor gives alone"
    dying.signal(signal.SIGKILL)

    await joiner.training()
    (joined,) = joiner.events("joined")
    assert joined["adopted"]
    used = _used(joiner)
    assert sum(used.values()) == CHUNKS
    assert CHUNKS // 2 <= used[dying.name] < CHUNKS, "what had come from the dead donor is kept"
    given_by_other = await _given(other) - before[other.name]
    assert given_by_other + used[dying.name] - CHUNKS < WINDOW, "fetched again"
    assert await _metric(joiner, "adpsgd_refetched_chunks_total") < WINDOW


async def test_a_joiner_fetches_from_all_donors_at_once(nodes: Nodes) -> None:
    group = await _run_of_two(nodes, FAST)
    joiner = await _join(nodes, group, f"--donor-bytes-per-s={FAST}")
    await joiner.training()
    used = _used(joiner)
    assert used.keys() == {"n0", "n1"}
    assert sum(used.values()) == CHUNKS
    assert (await group[0].status()).self_member.phase is Phase.TRAINING


async def _run_of_two(nodes: Nodes, bytes_per_s: int) -> list[NodeProcess]:
    options = [*OPTIONS, f"--donor-bytes-per-s={bytes_per_s}"]
    group = await nodes.start_run("n0", "n1", options=options, script=SCRIPT)
    for node in group:
        await node.training()
    return group


async def _join(nodes: Nodes, group: list[NodeProcess], *options: str) -> NodeProcess:
    seeds = [(await node.status()).self_member.address for node in group]
    return nodes.start("late", *OPTIONS, *options, script=trainer(*SCRIPT), seeds=seeds)


def _here(plane: Plane) -> int:
    """Count the chunks that have come."""
    return sum(bool(np.any(plane.live[start:stop])) for start, stop in plane.layout.chunks)


def _used(joiner: NodeProcess) -> dict[str, int]:
    """Read in the joiner's log how many chunks it took from whom."""
    (line,) = re.findall(r"fetched the model .*given=\"?([^\"]*?)\"? refetched", joiner.text())
    return {name: int(count) for name, _, count in (part.partition(":") for part in line.split())}


async def _given(node: NodeProcess) -> int:
    return round(await _metric(node, "adpsgd_model_bytes_given_total") / CHUNK_BYTES)


async def _metric(node: NodeProcess, name: str) -> float:
    text = await page((await node.status()).http_address, "/metrics")
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} "))

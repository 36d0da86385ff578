"""Nodes and links are slowed down on purpose, and it shows in the figures that the nodes themselves give."""

from __future__ import annotations

import signal
import statistics
from collections.abc import Sequence

import pytest

from adpsgd_node.plane import Plane
from support.http_page import page
from support.node_process import NodeProcess, Nodes, trainer
from support.numpy_trainer import tensors

CHUNK_BYTES = 1 << 20
STEP_S = 0.02
STEPS = 30
LINK_DIM = 50_000
"""Parameters of the model where links are slow: one chunk of 200 kB."""
PARTS = ("count", "sum")

DEAF = """
import runpy, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Hears of a stop from its daemon alone."""


@pytest.mark.slow
async def test_steps_of_the_node_named_are_stretched_and_the_others_are_not(nodes: Nodes) -> None:
    group = await nodes.start_run(
        "n0", "n1", options=["--emulate-step-ms=20", "--slow=n1=5", "--samples=1000000"], script=["--steps-per-s=0"]
    )
    plain, slow = await _step_seconds(group)
    # The script counts a step from the first line of its loop: what it did before belongs to computing, too.
    assert plain >= 0.7 * STEP_S
    assert slow >= 0.7 * 5 * STEP_S
    assert plain < slow / 2
    assert all("slowed down on purpose" in node.text() for node in group)


@pytest.mark.slow
async def test_a_step_of_an_hour_ends_when_its_node_is_told_to_leave(nodes: Nodes) -> None:
    (nodes.folder / "deaf.py").write_text(DEAF)
    script = [str(nodes.folder / "deaf.py"), *trainer("--no-finish")]
    node = nodes.start("n0", "--emulate-step-ms=3600000", "--drain-timeout=6", script=script)
    await node.until(lambda: node.events("joined"), "its join")
    node.signal(signal.SIGTERM)
    assert await node.ended() == 0, node.text()
    assert "SIGKILL" not in node.text(), "the script had to be killed in the middle of its step"
    (step,) = node.events("step")
    assert step["step"] == 1


@pytest.mark.slow
async def test_an_exchange_over_a_slow_link_takes_longer_and_no_step_waits_for_it(nodes: Nodes) -> None:
    options = ["--emulate-link-mbps=16", "--slow-link=n1=10", "--samples=1000000"]
    group = await nodes.start_run("n0", "n1", options=options, script=[f"--dim={LINK_DIM}", "--lr=0"])
    status = await group[0].wait_for(lambda s: s.exchanges_initiated >= 2, "exchanges")
    metrics = await page(status.http_address, "/metrics")
    count, seconds = (_metric(metrics, f'adpsgd_exchange_seconds_{part}{{role="initiator"}}') for part in PARTS)
    # There and back, each 200 kB at 200 kB/s: what a node without a handicap does in a tenth of that.
    assert seconds / count >= 2.0
    assert status.step > 10 * count
    assert "WARNING" not in group[0].text()


async def _step_seconds(group: Sequence[NodeProcess]) -> list[float]:
    """Return the median time of a step of each node, of the last `STEPS`."""
    for node in group:
        await node.wait_for(lambda s: s.step > STEPS, f"{STEPS} steps")
    return [_median(node.hold_plane(tensors(64), CHUNK_BYTES)) for node in group]


def _metric(metrics: str, name: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.rpartition(" ")[0] == name)


def _median(plane: Plane) -> float:
    ring, step = plane.header.step_seconds, plane.header.step
    return statistics.median(float(ring[index % len(ring)]) for index in range(step - STEPS + 1, step + 1))

"""The options beyond the paper among real nodes: what each daemon tells its trainer."""

from __future__ import annotations

import pytest

from adpsgd_node.core.topology import topology_named
from adpsgd_node.daemon.acceleration import momentum_at
from adpsgd_node.plane.header import Header
from support.node_process import NodeProcess, Nodes
from support.numpy_trainer import tensors

CHUNK_BYTES = 1 << 20
SLOW = 5.0
ENDLESS = "--samples=100000000"


def header_of(node: NodeProcess) -> Header:
    return node.hold_plane(tensors(64), CHUNK_BYTES).header


@pytest.mark.slow
async def test_a_slow_node_is_told_to_step_farther_and_a_fast_one_less_far(nodes: Nodes) -> None:
    options = ["--rate-correction=10", ENDLESS]
    scripts = {"n0": ["--steps-per-s=50"], "n1": [f"--steps-per-s={50 / SLOW}"]}
    fast, slow = await nodes.start_together("n0", "n1", options=options, scripts=scripts)
    of_slow, of_fast = header_of(slow), header_of(fast)
    await slow.until(lambda: of_slow.rate_scale > 2, "a large scale of the slow node")
    await fast.until(lambda: of_fast.rate_scale < 0.8, "a small scale of the fast node")
    mean = (1 + 1 / SLOW) / 2
    assert of_slow.rate_scale == pytest.approx(mean * SLOW, rel=0.3)
    assert of_fast.rate_scale == pytest.approx(mean, rel=0.3)
    await slow.says("learning rates are scaled")


@pytest.mark.slow
async def test_every_node_is_told_the_momentum_of_the_graph_that_is_there(nodes: Nodes) -> None:
    names = ("n0", "n1", "n2", "n3")
    group = await nodes.start_run(*names, options=["--acceleration", "--topology=ring", ENDLESS])
    for node in group:
        await node.training()
        expected = momentum_at(topology_named("ring"), names, node.name, ())
        header = header_of(node)
        await node.until(lambda header=header, e=expected: header.mixing_rate == e.mixing_rate, "its momentum")
        assert header.momentum_share == pytest.approx(expected.momentum_share)
        assert header.exchanges_per_unit == pytest.approx(2.0)
    assert expected.momentum_share > 1


@pytest.mark.slow
async def test_without_the_options_a_trainer_is_told_nothing(nodes: Nodes) -> None:
    for node in await nodes.start_run("n0", "n1", options=[ENDLESS]):
        await node.wait_for(lambda s: s.exchanges_initiated > 0, "an exchange")
        header = header_of(node)
        assert (header.rate_scale, header.momentum_share, header.mixing_rate) == (0.0, 0.0, 0.0)

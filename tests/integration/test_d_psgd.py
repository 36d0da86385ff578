"""Nodes of real processes train in rounds, by D-PSGD."""

from __future__ import annotations

import asyncio
import itertools
import signal

import numpy as np

from adpsgd_node.checkpoint.model_file import read_tensors
from adpsgd_node.core.membership.member import MemberState
from adpsgd_node.core.topology import metropolis_weights, topology_named
from support.node_process import NodeProcess, Nodes, relative_distance
from support.numpy_trainer import drift, initial

TOLERANCE = 1e-3
ROUNDS = "--algorithm=d-psgd"
EDGES = "a:b,b:c,b:d,c:d"
"""Degrees of 1, 3, 2 and 2."""
DIM = 64
DRIFT = 1.0
STEPS = 12


def steps_of(node: NodeProcess) -> int:
    return len(node.events("step"))


async def test_parameters_after_some_rounds_are_those_of_the_formula(nodes: Nodes) -> None:
    names = ("a", "b", "c", "d")
    last = STEPS + 3  # a node that has ended and agrees with the others is no part of the formula
    known = ["--lr=0", f"--drift={DRIFT}", f"--dim={DIM}", f"--max-steps={last}", f"--keep-at={STEPS}"]
    options = [ROUNDS, "--topology=custom", f"--edges={EDGES}", "--chunk-bytes=4096"]
    group = await nodes.start_together(*names, options=options, scripts=dict.fromkeys(names, known))
    for node in group:
        assert await node.ended() == 0, node.text()

    topology = topology_named("custom", EDGES)
    mixing = np.array(
        [[metropolis_weights(topology, names, own).get(other, 0.0) for other in names] for own in names], np.float64
    )
    start = initial(DIM).astype(np.float64)
    parameters = np.stack([start] * len(names))
    for step in range(1, STEPS + 1):
        moves = np.stack([drift(name, step, len(start), DRIFT) for name in names])
        parameters = (parameters if step == 1 else mixing @ parameters) + moves
    kept = np.stack([np.load(f"{node.folder / 'script.jsonl'}.kept.npy") for node in group])
    np.testing.assert_allclose(kept, parameters, rtol=1e-4, atol=1e-4)
    alone = np.stack([start + sum(drift(n, s, len(start), DRIFT) for s in range(1, STEPS + 1)) for n in names])
    assert relative_distance(kept, alone) > 0.1, "nothing was mixed"


async def test_nodes_in_rounds_go_at_the_pace_of_the_slowest_and_end_with_the_same_model(nodes: Nodes) -> None:
    slow = {"n2": ["--steps-per-s=20"]}
    group = await nodes.start_together("n0", "n1", "n2", options=[ROUNDS, "--epochs=2"], scripts=slow)
    for node in group:
        assert await node.ended() == 0, node.text()
        assert node.events("finished")[0]["members"] == 3
    counts = [steps_of(node) for node in group]
    assert max(counts) - min(counts) <= 2, counts
    models = [read_tensors(node.model)["weight"] for node in group]
    assert max(relative_distance(one, other) for one, other in itertools.combinations(models, 2)) <= TOLERANCE


async def test_a_killed_node_is_dropped_once_it_is_found_dead_and_takes_part_again_when_it_is_back(
    nodes: Nodes,
) -> None:
    options = [ROUNDS, "--epochs=10000"]
    group = await nodes.start_together("n0", "n1", "n2", options=options)
    first, second, lost = group
    await first.until(lambda: steps_of(first) > 10, "steps in rounds of three")
    lost.signal(signal.SIGKILL)
    await lost.ended()
    for node in (first, second):
        await node.sees("n2", MemberState.DEAD)
        before = steps_of(node)
        await node.until(lambda node=node, before=before: steps_of(node) > before + 10, "steps in rounds of two")

    back = nodes.start("n2", *options, seeds=[(await first.status()).self_member.address])
    await back.training()
    await back.until(lambda: steps_of(back) > 10, "steps of the one that is back")
    for node in (first, second):
        before, others = steps_of(node), steps_of(back)
        await node.until(
            lambda node=node, before=before: steps_of(node) > before + 10, "steps in rounds of three again"
        )
        await back.until(lambda others=others: steps_of(back) > others + 5, "steps of all three")


async def test_a_script_that_is_started_again_goes_on_with_the_round_it_left(nodes: Nodes) -> None:
    crash = {"n1": ["--crash-at=20"]}
    group = await nodes.start_together("n0", "n1", options=[ROUNDS, "--epochs=1"], scripts=crash)
    for node in group:
        assert await node.ended() == 0, node.text()
    assert len(group[1].events("joined")) == 2
    assert group[1].events("joined")[1]["resumed"]


async def test_nobody_waits_for_a_node_that_leaves(nodes: Nodes) -> None:
    first, second, leaver = await nodes.start_together("n0", "n1", "n2", options=[ROUNDS, "--epochs=10000"])
    await first.until(lambda: steps_of(first) > 10, "steps in rounds of three")
    leaver.signal(signal.SIGTERM)
    assert await leaver.ended() == 0, leaver.text()
    for node in (first, second):
        before = steps_of(node)
        await node.until(lambda node=node, before=before: steps_of(node) > before + 10, "steps in rounds of two")
    assert "dead" not in first.text() + second.text()
    await asyncio.gather(first.status(), second.status())


async def test_nobody_waits_for_the_steps_of_a_script_that_has_let_go_of_its_node(nodes: Nodes) -> None:
    options = [ROUNDS, "--epochs=10000"]
    first, second, _ = await nodes.start_together("n0", "n1", "n2", options=options, scripts={"n2": ["--let-go-at=20"]})
    for node in (first, second):
        await node.until(lambda node=node: steps_of(node) > 400, "steps without those of the third")

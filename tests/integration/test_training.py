"""Nodes train together from real processes: alone, in company, and joining late."""

from __future__ import annotations

import itertools
import signal
import statistics

import pytest

from adpsgd_node.checkpoint.model_file import read_tensors
from adpsgd_node.core.membership.member import Phase
from support.node_process import NodeProcess, Nodes, phase_of, relative_distance

TOLERANCE = 1e-3


async def test_a_node_alone_trains_and_finishes(nodes: Nodes) -> None:
    node = nodes.start("n0", "--epochs=1")
    assert await node.ended() == 0, node.text()
    steps = node.events("step")
    assert [entry["step"] for entry in steps] == list(range(1, len(steps) + 1))
    assert len(steps) >= 100
    assert statistics.mean(e["loss"] for e in steps[-10:]) < statistics.mean(e["loss"] for e in steps[:10]) / 4
    assert set(read_tensors(node.model)) == {"weight", "bias"}
    assert "WARNING" not in node.text()


async def test_two_nodes_train_together_and_write_the_same_model(nodes: Nodes) -> None:
    group = await nodes.start_together("n0", "n1", options=["--epochs=4"])
    await _finish_alike(group)
    for node in group:
        (finished,) = node.events("finished")
        assert finished["members"] == 2


async def test_five_nodes_train_together_and_write_the_same_model(nodes: Nodes) -> None:
    names = [f"n{number}" for number in range(5)]
    group = await nodes.start_run(*names, options=["--epochs=10"], script=["--steps-per-s=50"])
    status = await group[-1].wait_for(
        lambda s: s.steps_total > 200 and s.exchanges_initiated and len(s.members) == 5, "steps and exchanges of five"
    )
    assert [entry.member.name for entry in status.members] == names
    await _finish_alike(group)


async def test_nodes_that_stay_serve_the_model_when_the_run_is_over_until_they_are_told_to_stop(nodes: Nodes) -> None:
    group = await nodes.start_together("n0", "n1", options=["--epochs=2", "--stay"])
    for node in group:
        await node.wait_for(lambda s: s.self_member.phase is Phase.FINISHED, "the end of the run")
        await node.until(lambda node=node: "stays until told to stop" in node.text(), "staying")
    seed = (await group[0].status()).self_member.address
    late = nodes.start("late", "--epochs=2", seeds=[seed])
    assert await late.ended() == 0, late.text()
    (joined,) = late.events("joined")
    assert joined["adopted"]
    assert not late.events("step"), "the run was over"
    for node in group:
        assert node.process.poll() is None, "it did not stay"
        node.signal(signal.SIGTERM)
        assert await node.ended() == 0, node.text()
    first, *others = (read_tensors(node.model)["weight"] for node in (*group, late))
    assert all(relative_distance(first, other) <= TOLERANCE for other in others)


async def test_a_late_joiner_starts_from_the_model_of_the_others(nodes: Nodes) -> None:
    first, second = await nodes.start_run("n0", "n1", options=["--epochs=100"])
    await first.until(lambda: len(first.events("step")) > 3, "the founder's first steps")
    await first.until(lambda: _last_loss(first) < _first_loss(first) / 20, "a loss far below the first")
    seed = (await first.status()).self_member.address
    late = nodes.start("late", "--epochs=100", seeds=[seed])
    await late.until(lambda: len(late.events("step")) >= 5, "the late joiner's first steps")
    (joined,) = late.events("joined")
    assert joined["adopted"]
    assert joined["donor"] in ("n0", "n1")
    assert not joined["resumed"]
    early = statistics.mean(entry["loss"] for entry in late.events("step")[:5])
    assert early < _first_loss(first) / 10
    await second.wait_for(lambda s: phase_of(s, "late") is Phase.TRAINING, "n1 seeing it train")


@pytest.mark.slow
async def test_nodes_started_at_once_find_one_founder(nodes: Nodes) -> None:
    first = nodes.start("n3", "--epochs=10")
    seed = (await first.up()).self_member.address
    group = [first, *(nodes.start(f"n{number}", "--epochs=10", seeds=[seed]) for number in range(3))]
    await _finish_alike(group)
    founders = [node.name for node in group if not node.events("joined")[0]["adopted"]]
    assert len(founders) == 1


async def _finish_alike(group: list[NodeProcess]) -> None:
    """All nodes end well, and any two models are within the tolerance."""
    for node in group:
        assert await node.ended() == 0, node.text()
        assert node.events("finished"), node.text()
        assert "left exchanges unsettled" not in node.text()
        assert "Traceback" not in node.text()
    models = [read_tensors(node.model)["weight"] for node in group]
    distances = [relative_distance(one, other) for one, other in itertools.combinations(models, 2)]
    assert max(distances) <= TOLERANCE


def _first_loss(node: NodeProcess) -> float:
    return statistics.mean(entry["loss"] for entry in node.events("step")[:3])


def _last_loss(node: NodeProcess) -> float:
    return statistics.mean(entry["loss"] for entry in node.events("step")[-20:])

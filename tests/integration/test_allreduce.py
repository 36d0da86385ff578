"""Nodes that train with `--algorithm allreduce`, from real processes: they stay equal, or all end and say why."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from adpsgd_node.checkpoint.model_file import read_tensors
from adpsgd_node.core.membership.member import Phase
from adpsgd_node.errors import ConfigError, JoinError, PeerLostError, TrainerError
from support import torch_trainer
from support.node_process import NodeProcess, Nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCRIPT = Path(torch_trainer.__file__)
FOREVER = ("--samples=100000000",)


async def start(
    nodes: Nodes, size: int, options: tuple[str, ...], script: tuple[str, ...] = (), **own: str
) -> list[NodeProcess]:
    """Start all nodes of a world; `own`: a further option of single nodes' scripts."""
    group: list[NodeProcess] = []
    for number in range(size):
        name = f"n{number}"
        flags = [str(SCRIPT), "--log=LOG", f"--seed={number}", *script, *([own[name]] if name in own else [])]
        seeds = [(await group[0].up()).self_member.address] if group else []
        given = ("--algorithm=allreduce", f"--world-size={size}", *options)
        group.append(nodes.start(name, *given, script=flags, seeds=seeds))
    return group


async def stepping(group: list[NodeProcess], steps: int = 3) -> None:
    for node in group:
        await node.until(lambda node=node: len(node.events("step")) >= steps, f"{steps} steps")  # type: ignore[misc]


async def ended_with(node: NodeProcess, kind: type[Exception], *texts: str) -> None:
    assert await node.ended() == kind.exit_code, node.text()  # type: ignore[attr-defined]
    for text in texts:
        assert text in node.last_error(), node.text()


async def test_three_nodes_finish_after_the_same_step_with_the_same_model(nodes: Nodes) -> None:
    group = await start(nodes, 3, ("--epochs=2",))
    for node in group:
        assert await node.ended() == 0, node.text()
        assert "Traceback" not in node.text()
        assert "WARNING" not in node.text()
    steps = [len(node.events("step")) for node in group]
    assert steps[0] >= 2 * 800 / 8 / 3
    assert len(set(steps)) == 1
    first, *others = [read_tensors(node.model) for node in group]
    assert "1.running_var" in first
    for other in others:
        for name, values in first.items():
            assert np.array_equal(values, other[name]), name


async def test_the_others_end_with_the_name_of_one_that_is_killed(nodes: Nodes) -> None:
    group = await start(nodes, 3, FOREVER)
    await stepping(group)
    group[1].signal(signal.SIGKILL)
    for node in (group[0], group[2]):
        await ended_with(node, PeerLostError, "without n1")
        assert "PeerLostError: allreduce cannot go on without n1" in node.text()  # in the script
    await group[1].until(lambda: not nodes._marked(), "the end of all processes")


async def test_the_others_end_with_the_name_of_one_that_stands_still(nodes: Nodes) -> None:
    group = await start(nodes, 3, FOREVER)
    await stepping(group)
    halted = (await group[2].status()).trainer_pid
    os.kill(halted, signal.SIGSTOP)
    group[2].signal(signal.SIGSTOP)
    for node in group[:2]:
        await ended_with(node, PeerLostError, "without n2")


async def test_the_others_end_with_the_name_of_one_whose_script_died(nodes: Nodes) -> None:
    group = await start(nodes, 2, FOREVER)
    await stepping(group)
    os.kill((await group[1].status()).trainer_pid, signal.SIGKILL)
    assert await group[1].ended() == 128 + signal.SIGKILL
    await ended_with(group[0], PeerLostError, "without n1")


async def test_a_node_that_comes_later_has_no_place(nodes: Nodes) -> None:
    group = await start(nodes, 2, FOREVER, ("--pause-s=0.05",))
    await stepping(group)
    seed = [(await group[0].status()).self_member.address]
    flags = [str(SCRIPT), "--log=LOG", "--seed=9"]

    def start_late(name: str, size: int) -> NodeProcess:
        return nodes.start(name, "--algorithm=allreduce", f"--world-size={size}", *FOREVER, script=flags, seeds=seed)

    for node in [start_late("a-late", 2), start_late("z-late", 2)]:
        await ended_with(node, JoinError, "n0, n1", "nobody can join later")
    # Only now: whoever asks it would be told by it, too, that the two were not given the same.
    await ended_with(start_late("larger", 3), ConfigError, "--world-size 2", "--world-size 3")
    for node in group:
        assert (await node.status()).self_member.phase is Phase.TRAINING


async def test_a_node_that_would_wait_for_one_that_has_ended_says_so(nodes: Nodes) -> None:
    group = await start(nodes, 2, FOREVER, n0="--steps=3", n1="--steps=4")
    await ended_with(group[1], TrainerError, "n0 has ended the training", "step 4")
    assert await group[0].ended() == 0, group[0].text()


async def test_a_script_that_detaches_ends_its_node_and_so_the_others(nodes: Nodes) -> None:
    group = await start(nodes, 2, FOREVER, n1="--detach-after=3")
    await ended_with(group[1], TrainerError, "has not called finish()")
    await ended_with(group[0], PeerLostError, "without n1")

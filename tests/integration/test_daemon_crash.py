"""A daemon dies or freezes: its own trainer is told, the other nodes go on."""

from __future__ import annotations

import signal

import pytest

from adpsgd_node.core.membership.member import MemberState
from support.node_process import Nodes


async def test_a_trainer_whose_daemon_is_killed_ends_by_itself_and_the_others_finish(nodes: Nodes) -> None:
    first, second, victim = await nodes.start_run("n0", "n1", "n2", options=["--epochs=12"])
    await victim.training()
    await first.sees("n2", MemberState.ALIVE)
    victim.signal(signal.SIGKILL)
    await victim.until(lambda: victim.events("error"), "the trainer's error")
    (error,) = victim.events("error")
    assert error["kind"] == "DaemonLostError"
    assert "adpsgd-node up" in error["text"]
    assert victim.events("step")[-1]["time"] < error["time"]
    assert not victim.events("finished")
    for node in (first, second):
        assert await node.ended() == 0, node.text()
        assert node.events("finished")
        assert "Traceback" not in node.text()


async def test_a_killed_node_is_held_dead_and_may_come_back_under_its_name(nodes: Nodes) -> None:
    first, victim = await nodes.start_run("n0", "n1", options=["--epochs=1000"])
    await victim.training()
    seed = (await first.sees("n1", MemberState.ALIVE)).self_member.address
    victim.signal(signal.SIGKILL)
    again = nodes.start("n1", "--epochs=1000", seeds=[seed])
    await again.training()
    (joined,) = again.events("joined")
    assert joined["adopted"]
    boot = (await again.status()).self_member.id
    await first.wait_for(
        lambda s: any(e.member.id == boot and e.member.state is MemberState.ALIVE for e in s.members), "the new boot"
    )
    exchanges = (await again.status()).exchanges_responded
    await again.wait_for(lambda s: s.exchanges_responded > exchanges, "exchanges with it")


@pytest.mark.slow
async def test_a_frozen_daemon_is_missed_and_taken_back(nodes: Nodes) -> None:
    first, second, frozen = await nodes.start_run(
        "n0", "n1", "n2", options=["--epochs=30"], script=["--steps-per-s=60"]
    )
    await frozen.training()
    await first.sees("n2", MemberState.ALIVE)
    frozen.signal(signal.SIGSTOP)
    await first.sees("n2", MemberState.DEAD)
    # Its trainer does not wait for it, and the others go on with each other.
    steps = frozen.events("step")[-1]["step"]
    status = await first.status()
    await frozen.until(lambda: frozen.events("step")[-1]["step"] > steps + 20, "the steps of the frozen node's trainer")
    await first.wait_for(
        lambda s: s.step > status.step and s.exchanges_initiated > status.exchanges_initiated + 5, "exchanges"
    )
    frozen.signal(signal.SIGCONT)
    for node in (first, second):
        await node.sees("n2", MemberState.ALIVE)
    for node in (first, second, frozen):
        assert await node.ended() == 0, node.text()
        (finished,) = node.events("finished")
        assert finished["members"] == 3, node.text()
        assert "left exchanges unsettled" not in node.text()


@pytest.mark.slow
async def test_a_node_that_sleeps_through_the_end_finishes_on_waking(nodes: Nodes) -> None:
    first, frozen = await nodes.start_run("n0", "n1", options=["--epochs=6"])
    await frozen.training()
    await first.sees("n1", MemberState.ALIVE)
    frozen.signal(signal.SIGSTOP)
    assert await first.ended() == 0, first.text()
    frozen.signal(signal.SIGCONT)
    assert await frozen.ended() == 0, frozen.text()
    assert frozen.events("finished")

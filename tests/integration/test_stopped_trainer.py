"""Slow is not dead: membership judges daemons, and a trainer that stands still is its own daemon's business alone."""

from __future__ import annotations

import os
import signal

import pytest

from adpsgd_node.core.membership.member import MemberState
from support.node_process import Nodes, state_of

STEPS_PER_S = 60
STOPPED_S = 10
"""Longer than a whole probe and the least suspicion of the `local` preset together."""


@pytest.mark.slow
async def test_a_stopped_trainer_makes_nobody_a_suspect(nodes: Nodes) -> None:
    first, second, stopped = await nodes.start_run(
        "n0", "n1", "n2", options=["--epochs=1000"], script=[f"--steps-per-s={STEPS_PER_S}"]
    )
    for node in (first, second, stopped):
        await node.training()
    status = await stopped.wait_for(lambda s: s.exchanges_responded > 5, "exchanges")
    await first.sees("n2", MemberState.ALIVE)
    assert "member is now alive" in first.text(), "what is to be missing below would be written"
    step = (await first.status()).step
    os.kill(status.trainer_pid, signal.SIGSTOP)
    try:
        # The others' steps are the clock: nobody waits for the one that stands still.
        later = await first.wait_for(lambda s: s.step > step + STEPS_PER_S * STOPPED_S, f"{STOPPED_S} s of steps")
        still = await stopped.status()
        assert still.exchanges_responded > status.exchanges_responded + 10, "its plane goes on mixing"
        assert state_of(later, "n2") is MemberState.ALIVE
        for node in (first, second, stopped):
            assert "member is now suspect" not in node.text(), node.text()
            assert "member is now dead" not in node.text(), node.text()
    finally:
        os.kill(status.trainer_pid, signal.SIGCONT)

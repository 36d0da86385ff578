"""Slow is not dead: membership judges daemons, and a trainer that makes no steps is its own daemon's business alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest

from adpsgd_node.core.membership.member import MemberState
from support.node_process import TRAINER, NodeProcess, Nodes, state_of, trainer

STEPS_PER_S = 60
STOPPED_S = 10
BUSY_S = 6
"""Both are longer than a whole probe and the least suspicion of the `local` preset together."""
BUSY = """
import runpy, sys, time
trainer = runpy.run_path(sys.argv[1])
class Busy(trainer["Script"]):
    def _misbehave(self, done):
        if done == 30:
            self.note("busy")
            until = time.monotonic() + float(sys.argv[2])
            while time.monotonic() < until:
                pass
            self.note("idle")
script = Busy(trainer["parse"](sys.argv[3:]))
script.enter()
script.train()
"""
"""Computes once between two steps, never letting go of the interpreter."""


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
        _nobody_was_suspected((first, second, stopped))
    finally:
        os.kill(status.trainer_pid, signal.SIGCONT)


@pytest.mark.slow
async def test_a_trainer_that_computes_for_long_between_two_steps_makes_nobody_a_suspect(nodes: Nodes) -> None:
    (nodes.folder / "busy.py").write_text(BUSY)
    pace = f"--steps-per-s={STEPS_PER_S}"
    first, second = await nodes.start_run("n0", "n1", options=["--epochs=1000"], script=[pace])
    seed = (await first.up()).self_member.address
    script = [str(nodes.folder / "busy.py"), str(TRAINER), str(BUSY_S), *trainer(pace)[1:]]
    busy = nodes.start("n2", "--epochs=1000", seeds=[seed], script=script)
    await first.sees("n2", MemberState.ALIVE)
    assert "member is now alive" in first.text(), "what is to be missing below would be written"
    await busy.until(lambda: busy.events("busy"), "the long computation")
    before, step = await busy.status(), (await first.status()).step
    await busy.wait_for(
        lambda s: s.step == before.step and s.exchanges_responded > before.exchanges_responded + 5,
        "its plane going on mixing meanwhile",
    )
    assert (await first.status()).step > step, "nobody waits for the one that computes"
    await busy.until(lambda: busy.events("idle"), "its end")
    await busy.wait_for(lambda s: s.step > before.step + 10, "further steps")
    (begun,), (ended,) = busy.events("busy"), busy.events("idle")
    assert ended["time"] - begun["time"] >= BUSY_S
    assert not [event for event in busy.events("step") if begun["time"] < event["time"] < ended["time"]]
    _nobody_was_suspected((first, second, busy))


def _nobody_was_suspected(group: Sequence[NodeProcess]) -> None:
    for node in group:
        assert "member is now suspect" not in node.text(), node.text()
        assert "member is now dead" not in node.text(), node.text()

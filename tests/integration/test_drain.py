"""A node leaves in good order: nothing half-done, nobody waits for it, what it learnt stays, nobody is alarmed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from adpsgd_node.core.membership.member import MemberState, Phase
from adpsgd_node.plane import Plane
from support.node_process import PATIENCE_S, NodeProcess, Nodes, phase_of, trainer
from support.numpy_trainer import tensors

CHUNK_BYTES = 4 << 10
DIM = 150_000
"""Parameters of the model: 147 chunks, so that an exchange takes a while and a signal comes in the middle of one."""
SCRIPT = (f"--dim={DIM}", "--lr=0", "--drift=0.01", "--steps-per-s=5")
DRAIN_TIMEOUT_S = 45.0
"""With the margin below `PATIENCE_S`, so that a node that takes longer is seen to."""
END_MARGIN_S = 5.0
"""What a node's end may take beyond its time to leave: what was cut off, closing the servers, a busy machine."""
OPTIONS = (f"--chunk-bytes={CHUNK_BYTES}", f"--drain-timeout={DRAIN_TIMEOUT_S}", "--membership=wan")
"""Membership is patient: on a crowded machine nodes may be slow, and here only those that leave are to be missed."""
BACK_TO_BACK = "--exchanges-per-step=8"

STUCK = """
import signal, sys, runpy
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
while True:
    signal.pause()
"""
"""Stops stepping when told to, and does not end."""

DIES_IN_A_FOLD = """
import os, runpy, signal, sys
trainer = runpy.run_path(sys.argv[1])
script = trainer["Script"](trainer["parse"](sys.argv[2:]))
def die(number, frame):
    script._plane.redo[0][:] = 7
    script._plane.redo[1][:] = 0
    script._plane.header.fold_commit = 1
    os._exit(1)
signal.signal(signal.SIGTERM, die)
script.enter()
script.train()
"""
"""Ends between committing a fold to the redo log and carrying it out."""


async def test_sigterm_in_the_middle_of_exchanges_leaves_nothing_half_done(nodes: Nodes) -> None:
    stayers = await _stayers(nodes)
    mid_exchange = await _leave_again_and_again(nodes, stayers, rounds=1, at_once=3)
    assert mid_exchange, "no node was told to leave in the middle of an exchange"


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_sigterm_in_the_middle_of_exchanges_a_hundred_times(nodes: Nodes) -> None:
    stayers = await _stayers(nodes)
    mid_exchange = await _leave_again_and_again(nodes, stayers, rounds=19, at_once=8, enough=100)
    assert mid_exchange >= 100, f"only {mid_exchange} were told to leave in the middle of an exchange"


async def test_what_a_node_learnt_stays_with_the_others(nodes: Nodes) -> None:
    # So few exchanges that there is none but the last: what the stayer has of the leaver, it has from that.
    options = ("--chunk-bytes=4096", "--exchanges-per-step=1e-6")
    stayer = nodes.start("a", *options, script=[*trainer(), "--lr=0", "--drift=0.5"])
    await stayer.training()
    seed = (await stayer.status()).self_member.address
    leaver = nodes.start("b", *options, script=[*trainer(), "--lr=0", "--drift=1"], seeds=[seed])
    await leaver.wait_for(lambda s: s.step > 20, "steps")
    planes = [node.hold_plane(tensors(64), 4096) for node in (stayer, leaver)]
    assert not planes[0].inbox.any()
    leaver.signal(signal.SIGTERM)
    assert await leaver.ended() == 0, leaver.text()
    kept, given = planes[0].inbox.copy(), planes[1].inbox.copy()
    assert np.linalg.norm(kept) > 0.1
    np.testing.assert_array_equal(kept, -given)


async def test_the_drain_command_has_a_node_leave_and_waits_for_its_end(nodes: Nodes) -> None:
    stayer, leaver = await nodes.start_run("a", "b", options=["--epochs=1000"])
    await leaver.training()
    await stayer.sees("b", MemberState.ALIVE)
    code, out = await _adpsgd_node(nodes, "drain", "b", "--timeout=40")
    assert (code, leaver.process.poll()) == (0, 0), out + leaver.text()
    assert "b of run test is leaving, in 40 s at most" in out
    assert "b of run test has left after" in out
    assert 'cause="adpsgd-node drain"' in leaver.text()
    assert "reason=drain" in leaver.text()
    assert "without_trainer" not in leaver.text(), "the script was asked for its state while it still stepped"
    assert list((leaver.folder / "out" / "checkpoints").glob("*/manifest.json"))
    await stayer.sees("b", MemberState.LEFT)


async def test_the_drain_command_names_what_it_cannot_do(nodes: Nodes) -> None:
    first, second = await nodes.start_run("a", "b", options=["--epochs=1000"])
    await second.up()
    code, out = await _adpsgd_node(nodes, "drain")
    assert code == 1
    assert "nodes here: a (run test), b (run test); say which" in out
    code, out = await _adpsgd_node(nodes, "drain", "c")
    assert code == 1
    assert "no node named c runs here; running: a (run test), b (run test)" in out
    assert first.process.poll() is None
    assert second.process.poll() is None


async def test_a_checkpoint_is_written_when_asked_for(nodes: Nodes) -> None:
    node = nodes.start("a")
    await node.training()
    code, out = await _adpsgd_node(nodes, "checkpoint", "a")
    assert code == 0, out
    assert (Path(out.strip()) / "manifest.json").exists()
    before = (await node.status()).step
    await node.wait_for(lambda s: s.step > before, "further steps")


async def test_a_checkpoint_that_cannot_be_written_is_told_with_the_reason(nodes: Nodes) -> None:
    node = nodes.start("a", seeds=["127.0.0.1:1"])  # which let nobody in
    await node.up()
    code, out = await _adpsgd_node(nodes, "checkpoint", "a")
    assert code == 1
    assert "no model yet" in out


async def test_a_frozen_peer_does_not_keep_a_node_from_leaving_in_its_time(nodes: Nodes) -> None:
    timeout_s = 3.0
    frozen, leaver = await nodes.start_run("a", "b", options=["--epochs=1000", "--membership=wan"])
    await leaver.wait_for(lambda s: s.exchanges_initiated > 2, "exchanges")
    frozen.signal(signal.SIGSTOP)
    code, out = await _adpsgd_node(nodes, "drain", "b", f"--timeout={timeout_s}", f"--socket={leaver.socket}")
    assert (code, leaver.process.poll()) == (0, 0), out + leaver.text()
    took = re.search(r"b of run test has left after ([\d.]+) s", out)
    assert took, out
    print(f"left after {took[1]} s of {timeout_s:g}")
    assert float(took[1]) <= timeout_s + END_MARGIN_S
    assert "leaves with something left open" in leaver.text()
    assert "no last exchange" in leaver.text()
    assert "wrote a checkpoint" in leaver.text(), "what comes after a stage without time is still done"


async def test_a_node_that_stays_after_its_script_leaves_in_good_order_too(nodes: Nodes) -> None:
    stayer = nodes.start("a", "--epochs=1000")
    seed = (await stayer.training()).self_member.address
    script = trainer("--max-steps=50", "--no-finish")
    node = nodes.start("b", "--epochs=1000", "--stay", script=script, seeds=[seed])
    await node.says("stays until told to stop")
    node.signal(signal.SIGTERM)
    assert await node.ended() == 0, node.text()
    assert "is ready to leave" in node.text()
    assert list((node.folder / "out" / "checkpoints").glob("*/manifest.json"))
    await stayer.sees("b", MemberState.LEFT)


async def test_a_script_that_does_not_end_is_killed_in_time(nodes: Nodes) -> None:
    (nodes.folder / "stuck.py").write_text(STUCK)
    node = nodes.start("a", "--drain-timeout=4", script=[str(nodes.folder / "stuck.py"), *trainer("--no-finish")])
    await node.training()
    node.signal(signal.SIGTERM)
    assert await node.ended() == 0, node.text()
    assert "script was ended by SIGKILL" in node.text()
    assert "is ready to leave" in node.text()


async def test_a_node_that_is_leaving_is_not_waited_for_at_the_end_of_the_run(nodes: Nodes) -> None:
    (nodes.folder / "stuck.py").write_text(STUCK)
    first = nodes.start("a", "--samples=6000")
    seed = (await first.up()).self_member.address
    script = [str(nodes.folder / "stuck.py"), *trainer("--no-finish")]
    leaver = nodes.start("b", "--samples=6000", "--drain-timeout=600", script=script, seeds=[seed])
    await leaver.training()
    await first.sees("b", MemberState.ALIVE)
    leaver.signal(signal.SIGTERM)
    await first.wait_for(lambda s: phase_of(s, "b") is Phase.DRAINING, "b being known to leave")
    assert await first.ended() == 0, first.text()
    (finished,) = first.events("finished")
    assert finished["members"] == 1
    assert "do not agree" not in first.text()
    assert leaver.process.poll() is None
    leaver.signal(signal.SIGTERM)
    assert await leaver.ended() == 128 + signal.SIGTERM


async def test_a_fold_that_the_scripts_end_cut_in_two_is_completed_before_others_see_it(nodes: Nodes) -> None:
    (nodes.folder / "mid_fold.py").write_text(DIES_IN_A_FOLD)
    node = nodes.start("a", script=[str(nodes.folder / "mid_fold.py"), *trainer()])
    await node.training()
    plane = node.hold_plane(tensors(64), 1 << 20)
    node.signal(signal.SIGTERM)
    assert await node.ended() == 0, node.text()
    assert plane.header.fold_commit == 0
    assert (plane.live[:64] == 7).all()


async def _adpsgd_node(nodes: Nodes, *arguments: str) -> tuple[int, str]:
    """Run the command line beside the nodes; returns its exit code, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "adpsgd_cli", *arguments),
        env={**os.environ, "XDG_RUNTIME_DIR": str(nodes.runtime)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def _stayers(nodes: Nodes) -> list[NodeProcess]:
    """Start the two nodes that the others leave, and hold their planes."""
    stayers = await nodes.start_run("a", "b", options=OPTIONS, script=SCRIPT)
    for node in stayers:
        await node.training()
        node.hold_plane(tensors(DIM), CHUNK_BYTES)
    return stayers


async def _leave_again_and_again(
    nodes: Nodes, stayers: Sequence[NodeProcess], *, rounds: int, at_once: int, enough: int = 1
) -> int:
    """Have nodes join, exchange and leave until `enough` were told to in the middle of an exchange; returns how many.

    rounds: the most that is tried.
    """
    seed = (await stayers[0].status()).self_member.address
    planes = [plane for node in stayers for plane in node.planes]
    mid_exchange, number, longest_s = 0, 0, 0.0
    while mid_exchange < enough and number < rounds:
        leavers = [
            nodes.start(f"r{number}n{index}", *OPTIONS, BACK_TO_BACK, script=[*trainer(), *SCRIPT], seeds=[seed])
            for index in range(at_once)
        ]
        await asyncio.gather(*(_exchanges(node) for node in leavers))
        planes += [node.hold_plane(tensors(DIM), CHUNK_BYTES) for node in leavers]
        took_s = await asyncio.gather(*(_leaves_in_time(node) for node in leavers))
        longest_s = max(longest_s, *took_s)
        mid_exchange += sum(_was_exchanging(node) for node in leavers)
        number += 1
        await _nobody_is_left_waiting(stayers, leavers)
    print(f"{mid_exchange} of {number * at_once} in the middle of an exchange; left after {longest_s:.1f} s at most")
    # Only when nobody exchanges any more does the ledger stand still; the two leave each other, and neither waits.
    await asyncio.gather(*(_leaves_in_time(node) for node in stayers))
    for node in stayers:
        assert "left open" not in node.text(), node.text()
    _mass_holds(planes)
    return mid_exchange


async def _exchanges(node: NodeProcess) -> None:
    await node.wait_for(lambda s: s.exchanges_initiated + s.exchanges_responded > 2, "exchanges")


async def _leaves_in_time(node: NodeProcess) -> float:
    """Tell a node to leave and wait for its end, which `--drain-timeout` bounds; returns the seconds that took."""
    begun = time.monotonic()
    node.signal(signal.SIGTERM)
    assert await node.ended() == 0, node.text()
    took_s = time.monotonic() - begun
    assert took_s <= DRAIN_TIMEOUT_S + END_MARGIN_S, node.text()
    return took_s


def _was_exchanging(node: NodeProcess) -> bool:
    found = re.search(r"leaves in good order .*running=(\d+)", node.text())
    assert found, node.text()
    return int(found[1]) > 0


async def _nobody_is_left_waiting(stayers: Sequence[NodeProcess], leavers: Sequence[NodeProcess]) -> None:
    for node in leavers:
        text = node.text()
        assert "is ready to leave" in text, text
        assert "Traceback" not in text, text
    for stayer in stayers:
        for node in leavers:
            await stayer.sees(node.name, MemberState.LEFT)
            assert not re.search(rf"is now (suspect|dead) member={node.name}#", stayer.text()), stayer.text()
        status = await stayer.wait_for(lambda s: s.unsettled == 0, "all being settled")
        assert not status.problem
        await stayer.wait_for(lambda s, b=status: s.exchanges_initiated > b.exchanges_initiated, "further exchanges")


def _mass_holds(planes: Sequence[Plane]) -> None:
    """See that what was added on one side was taken on another; those that have left included."""
    assert not any(plane.inbox_face.any() for plane in planes), "after a rebase `inbox` is not all that was received"
    received = [plane.inbox.astype(np.float64) for plane in planes]
    largest = max(float(np.linalg.norm(part)) for part in received)
    assert largest > 0.01, "nothing was ever exchanged"
    assert np.linalg.norm(sum(received)) < 1e-5 * largest

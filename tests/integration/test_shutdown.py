"""Signals end a node in order, and a second one at once."""

from __future__ import annotations

import signal
import textwrap

from adpsgd_node.core.membership.member import MemberState
from support.node_process import Nodes, state_of, trainer

STUBBORN = """
import signal, sys, runpy
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Handles SIGTERM by going on until `should_stop`."""

STUCK = (
    STUBBORN
    + """
while True:
    signal.pause()
"""
)


async def test_sigterm_ends_a_node_in_order_and_the_others_see_it_leave(nodes: Nodes) -> None:
    first, second = await nodes.start_run("n0", "n1", options=["--epochs=1000"])
    await second.training()
    await first.sees("n1", MemberState.ALIVE)
    script = (await second.status()).trainer_pid
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0, second.text()
    status = await first.wait_for(lambda s: state_of(s, "n1") is not MemberState.ALIVE, "n1 being gone")
    assert state_of(status, "n1") is MemberState.LEFT
    assert status.unsettled == 0
    assert not _lives(script)
    assert not second.socket.exists()
    assert "left exchanges unsettled" not in second.text()
    await first.wait_for(lambda s: s.step > status.step, "steps of the one that is left")


async def test_sigint_ends_a_node_in_order_with_130(nodes: Nodes) -> None:
    node = nodes.start("n0")
    await node.training()
    node.signal(signal.SIGINT)
    assert await node.ended() == 130, node.text()
    assert "Traceback" not in node.text()


async def test_a_signal_ends_a_node_that_waits_for_its_seeds(nodes: Nodes) -> None:
    node = nodes.start("n0", seeds=["127.0.0.1:1"])
    await node.says("no seed lets this node in")
    node.signal(signal.SIGTERM)
    assert await node.ended() == 0, node.text()
    assert "Traceback" not in node.text()


async def test_script_that_handles_sigterm_is_told_to_stop_and_writes_its_model(nodes: Nodes) -> None:
    (nodes.folder / "stubborn.py").write_text(textwrap.dedent(STUBBORN))
    node = nodes.start("n0", script=[str(nodes.folder / "stubborn.py"), *trainer()])
    await node.training()
    node.signal(signal.SIGTERM)
    assert await node.ended() == 0, node.text()
    assert node.model.exists()


async def test_a_second_signal_ends_a_node_and_its_script_at_once(nodes: Nodes) -> None:
    (nodes.folder / "stuck.py").write_text(textwrap.dedent(STUCK))
    node = nodes.start("n0", script=[str(nodes.folder / "stuck.py"), *trainer()])
    script = (await node.training()).trainer_pid
    node.signal(signal.SIGTERM)
    await node.says("wrote the model")
    assert node.process.poll() is None
    node.signal(signal.SIGTERM)
    assert await node.ended() == 128 + signal.SIGTERM
    await node.until(lambda: not _lives(script), "the end of the script")


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

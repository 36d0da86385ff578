"""Nodes that do not belong together refuse each other by name, and the run goes on."""

from __future__ import annotations

import pytest

from adpsgd_node.core.membership.member import MemberState, Phase
from support.node_process import NodeProcess, Nodes, phase_of, trainer

NAME_IN_USE, RUN_MISMATCH, SCHEMA_MISMATCH = 5, 6, 7
"""Exit codes of docs/operations.md."""


async def test_a_second_node_of_a_name_on_one_machine_is_refused(nodes: Nodes) -> None:
    first = await _founder(nodes)
    second = nodes.start("n0")
    assert await second.ended() == NAME_IN_USE
    assert f"process {first.pid}" in second.last_error()
    assert "--name" in second.last_error()
    assert (await first.status()).self_member.phase is Phase.TRAINING


async def test_a_second_node_of_a_name_on_another_machine_is_refused(nodes: Nodes) -> None:
    first = await _founder(nodes)
    address = (await first.status()).self_member.address
    second = nodes.start("n0", seeds=[address], runtime="elsewhere")
    assert await second.ended() == NAME_IN_USE
    assert address in second.last_error()
    assert "--name" in second.last_error()
    assert "refused a node that wants to join" in first.text()
    status = await first.status()
    assert [entry.member.state for entry in status.members] == [MemberState.ALIVE]


async def test_a_node_with_another_model_is_refused_with_the_first_difference(nodes: Nodes) -> None:
    first = await _founder(nodes)
    second = nodes.start("n1", seeds=[(await first.status()).self_member.address], script=trainer("--dim=65"))
    assert await second.ended() == SCHEMA_MISMATCH
    assert "weight float32[65] here and weight float32[64] there" in second.last_error()
    assert "--run" in second.last_error()
    assert first.text().count("the models differ") == 1
    await first.sees("n1", MemberState.LEFT)
    await _goes_on(first)


async def test_a_node_with_another_chunk_size_is_refused(nodes: Nodes) -> None:
    first = await _founder(nodes)
    second = nodes.start("n1", "--chunk-bytes=8192", seeds=[(await first.status()).self_member.address])
    assert await second.ended() == SCHEMA_MISMATCH
    assert "--chunk-bytes" in second.last_error()
    await _goes_on(first)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--algorithm=d-psgd"], "--algorithm d-psgd"),
        (["--acceleration", "--rate-correction=10"], "--algorithm ad-psgd --acceleration --rate-correction 10"),
    ],
)
async def test_a_node_that_would_train_otherwise_is_refused_and_told_how_the_run_does(
    nodes: Nodes, options: list[str], said: str
) -> None:
    first = await _founder(nodes)
    address = (await first.status()).self_member.address
    second = nodes.start("n1", *options, seeds=[address])
    assert await second.ended() == RUN_MISMATCH
    assert f"it runs --algorithm ad-psgd, and {said} came" in second.last_error()
    await first.sees("n1", MemberState.LEFT)
    await _goes_on(first)


async def test_a_node_of_another_run_is_refused_and_both_sides_say_so_once(nodes: Nodes) -> None:
    first = await _founder(nodes)
    address = (await first.status()).self_member.address
    second = nodes.start("n1", seeds=[address], run="other")
    assert await second.ended() == RUN_MISMATCH
    said = "n0 belongs to run 'test', n1 to run 'other'"
    assert said in second.last_error()
    assert second.text().count(said) == 1
    assert first.text().count(said) == 1
    assert phase_of(await first.status(), "n1") is None
    await _goes_on(first)


async def test_a_restarted_script_with_another_model_is_refused(nodes: Nodes) -> None:
    script = nodes.folder / "grows.py"
    script.write_text(
        "import pathlib, runpy, sys\n"
        "mark = pathlib.Path('started')\n"
        "sys.argv = sys.argv[1:] + [f'--dim={65 if mark.exists() else 64}']\n"
        "mark.touch()\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    node = nodes.start("n0", "--max-restarts=1", script=[str(script), *trainer("--raise-at=3")])
    assert await node.ended() == 1
    assert "SchemaMismatchError: the restarted script's model differs from the one this node holds" in node.text()
    assert "weight float32[65] here and weight float32[64] there" in node.text()


async def _founder(nodes: Nodes) -> NodeProcess:
    node = nodes.start("n0")
    await node.training()
    return node


async def _goes_on(node: NodeProcess) -> None:
    step = (await node.status()).step
    await node.wait_for(lambda s: s.step > step and not s.problem, "further steps")

"""A node whose loss or parameters are not finite keeps them to itself; the others are unaffected."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adpsgd_node.checkpoint.model_file import read_tensors
from adpsgd_node.core.membership.member import MemberState, Phase
from support.http_page import page
from support.node_process import Nodes, phase_of, trainer

POISONED = 8
"""Exit code of docs/operations.md."""


async def test_a_node_with_a_nan_loss_stops_exchanging_and_the_others_finish(nodes: Nodes) -> None:
    first = nodes.start("n0", "--epochs=8")
    seed = (await first.up()).self_member.address
    second = nodes.start("n1", "--epochs=8", seeds=[seed])
    ill = nodes.start("n2", "--epochs=8", "--max-restarts=0", seeds=[seed], script=trainer("--nan-at=20"))
    status = await ill.wait_for(lambda s: s.self_member.phase is Phase.POISONED, "POISONED")
    assert "loss is not finite since step 2" in status.problem
    assert 'adpsgd_member_phases{phase="poisoned"} 1.0' in await page(status.http_address, "/metrics")
    assert "loss is not finite" in ill.last_error()
    for node in (first, second):
        await node.wait_for(lambda s: phase_of(s, "n2") is Phase.POISONED, "n2 being POISONED")
    exchanges = (await ill.status()).exchanges_responded
    await ill.wait_for(lambda s: s.samples_total > status.samples_total + 200, "progress of the others")
    assert (await ill.status()).exchanges_responded == exchanges

    for node in (first, second):
        assert await node.ended() == 0, node.text()
        assert np.isfinite(read_tensors(node.model)["weight"]).all()
        assert all(math.isfinite(entry["loss"]) for entry in node.events("step"))
        assert node.events("finished")[0]["members"] == 2
    assert await ill.ended() == POISONED, ill.text()
    assert "learning rate" in ill.last_error()
    assert not ill.model.exists()


async def test_a_restarted_script_of_a_poisoned_node_adopts_a_model_of_the_others(nodes: Nodes) -> None:
    first = nodes.start("n0", "--epochs=1000")
    seed = (await first.up()).self_member.address
    script = trainer("--nan-at=20", "--raise-at-nan")
    ill = nodes.start("n1", "--epochs=1000", seeds=[seed], script=script)
    await ill.until(lambda: len(ill.events("joined")) == 2, "the second life of the script")
    again = ill.events("joined")[1]
    assert again["adopted"]
    assert not again["resumed"]
    await ill.wait_for(lambda s: s.self_member.phase is Phase.TRAINING and not s.problem, "TRAINING")
    await first.sees("n1", MemberState.ALIVE)
    losses = [entry["loss"] for entry in ill.events("step") if entry["pid"] == again["pid"]]
    assert all(math.isfinite(loss) for loss in losses)


async def test_a_model_that_a_script_ruins_as_it_dies_is_not_gone_on_with(nodes: Nodes) -> None:
    """Nobody was there to exchange with and find out: it is found when the next script asks."""
    script = trainer("--ruin-at=20", "--crash-at=20")
    node = nodes.start("n0", "--epochs=10", "--max-restarts=2", "--poison-timeout=30", script=script)
    assert await node.ended() == POISONED, node.text()
    assert "its parameters are not finite" in node.text()
    assert len(node.events("joined")) == 1
    assert all(math.isfinite(entry["loss"]) for entry in node.events("step"))


async def test_a_node_alone_does_not_pass_an_untrained_model_for_its_result(nodes: Nodes) -> None:
    node = nodes.start("n0", "--epochs=10", "--max-restarts=1", script=trainer("--nan-at=20", "--raise-at-nan"))
    assert await node.ended() == POISONED, node.text()
    assert len(node.events("joined")) == 1
    assert "no live peer has a model" in node.last_error()
    assert not node.model.exists()


async def test_a_node_that_stays_poisoned_ends(nodes: Nodes) -> None:
    node = nodes.start("n0", "--epochs=10", "--poison-timeout=1", script=trainer("--nan-at=20"))
    assert await node.ended() == POISONED, node.text()
    assert "for 1 s" in node.last_error()
    assert "Traceback" not in node.text()


async def test_a_model_that_its_last_step_has_ruined_is_not_written(nodes: Nodes) -> None:
    """The loss of the last step was still finite: only the parameters tell."""
    node = nodes.start("n0", "--max-restarts=0", script=trainer("--max-steps=20", "--ruin-at=20"))
    assert await node.ended() == POISONED, node.text()
    assert all(math.isfinite(entry["loss"]) for entry in node.events("step"))
    assert "its parameters are not finite" in node.text()
    assert not node.model.exists()


@pytest.mark.slow
async def test_one_bad_batch_is_forgiven_once_loss_and_parameters_are_finite_again(nodes: Nodes) -> None:
    first = nodes.start("n0", "--epochs=1000")
    seed = (await first.up()).self_member.address
    script = trainer("--nan-at=20", "--skip-nan")
    forgiven = nodes.start("n1", "--epochs=1000", seeds=[seed], script=script)
    await forgiven.says("finite again")
    exchanges = (await forgiven.status()).exchanges_responded
    await forgiven.wait_for(
        lambda s: s.self_member.phase is Phase.TRAINING and s.exchanges_responded > exchanges, "exchanges"
    )
    assert len(forgiven.events("joined")) == 1

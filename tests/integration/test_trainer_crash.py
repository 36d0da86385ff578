"""The script dies, its daemon lives: nothing of the model is lost, and the others hardly notice."""

from __future__ import annotations

import os
import signal
import statistics

import numpy as np
import pytest

from adpsgd_node.checkpoint.model_file import read_tensors
from adpsgd_node.core.membership.member import Phase
from support.exact_view import exact_view
from support.node_process import Nodes, relative_distance
from support.numpy_trainer import drift, tensors

CHUNK_BYTES = 4096


async def test_a_killed_script_is_restarted_and_goes_on_from_the_live_plane(nodes: Nodes) -> None:
    first, second = await nodes.start_run("n0", "n1", options=["--epochs=1000"], script=["--wait-to-rejoin"])
    await second.training()
    status = await first.wait_for(lambda s: s.step > 100 and s.exchanges_initiated > 20, "100 steps")
    os.kill(status.trainer_pid, signal.SIGKILL)

    # Between two lives of the script the daemon goes on exchanging what the plane holds.
    without = await first.wait_for(lambda s: s.trainer_pid == 0, "the script's end")
    exchanges = without.exchanges_initiated + without.exchanges_responded
    later = await first.wait_for(lambda s: s.exchanges_initiated + s.exchanges_responded > exchanges, "exchanges")
    assert later.trainer_pid == 0
    assert later.self_member.phase is Phase.TRAINING
    assert later.step == without.step

    (first.folder / "script.jsonl.rejoin").touch()
    await first.wait_for(
        lambda s: s.trainer_restarts == 1 and s.step > without.step + 20, "the restarted script's steps"
    )
    joined = first.events("joined")
    assert [entry["resumed"] for entry in joined] == [False, True]
    steps = first.events("step")
    before = [entry for entry in steps if entry["pid"] == joined[0]["pid"]]
    after = [entry for entry in steps if entry["pid"] == joined[1]["pid"]]
    assert after[0]["step"] in (before[-1]["step"], before[-1]["step"] + 1)  # killed between a step and its log line
    assert statistics.mean(e["loss"] for e in after[:10]) < statistics.mean(e["loss"] for e in before[:10]) / 4


async def test_a_script_that_dies_while_the_models_settle_comes_back_and_finishes(nodes: Nodes) -> None:
    scripts = {"n1": ["--crash-settling"]}
    first, second = await nodes.start_together("n0", "n1", options=["--epochs=2"], scripts=scripts)
    for node in (first, second):
        assert await node.ended() == 0, node.text()
        assert "do not agree" not in node.text(), node.text()
    models = [read_tensors(node.model)["weight"] for node in (first, second)]
    assert relative_distance(*models) <= 1e-3
    assert [entry["resumed"] for entry in second.events("joined")] == [False, True]


@pytest.mark.slow
async def test_mass_is_conserved_over_crashes_of_scripts(nodes: Nodes) -> None:
    """The ledger from outside: what each node started from, and its own known moves; no more, no less."""
    names, dim, size = ("n0", "n1", "n2"), 5000, 0.01
    script = [f"--dim={dim}", "--lr=0", f"--drift={size}", "--steps-per-s=50"]
    options = ["--samples=6000", f"--chunk-bytes={CHUNK_BYTES}"]
    group = await nodes.start_run(*names, options=options, script=[*script, "--crash-at=40", "--crash-at=90"])
    planes = []
    for node in group:
        await node.training()
        planes.append(node.hold_plane(tensors(dim), CHUNK_BYTES))
    for node in group:
        assert await node.ended() == 0, node.text()
        assert len(node.events("joined")) == 3, "two crashes make three lives"
        assert "left exchanges unsettled" not in node.text()

    # The scripts crash between two steps, so the header counts exactly the moves that were made.
    elements = planes[0].layout.elements
    expected = np.zeros(elements)
    for node, plane in zip(group, planes, strict=True):
        expected += np.load(node.folder / "script.jsonl.start.npy")
        for step in range(1, plane.header.step + 1):
            expected += drift(node.name, step, elements, size)
    views = [exact_view(plane) for plane in planes]
    assert sum(plane.header.exchanges for plane in planes) > 100
    assert np.linalg.norm(sum(views) - expected) / np.linalg.norm(expected) < 1e-5
    assert not any(plane.inbox_face.any() for plane in planes), "after a rebase `inbox` is not all that was received"
    received = [plane.inbox.astype(np.float64) for plane in planes]
    assert np.linalg.norm(sum(received)) < 1e-5 * max(np.linalg.norm(part) for part in received)
    assert max(np.linalg.norm(part) for part in received) > size, "nothing was ever exchanged"


async def test_the_output_of_a_script_that_dies_is_passed_on(nodes: Nodes) -> None:
    folder = nodes.folder / "scripts"
    folder.mkdir()
    (folder / "dies.py").write_text("import os\nprint('last words')\nos.abort()\n")
    node = nodes.start("n0", "--max-restarts=0", script=[str(folder / "dies.py")])
    assert await node.ended() == 128 + signal.SIGABRT
    assert "[n0] last words" in node.text()
    assert "SIGABRT" in node.text()

"""The demo's parts: its plan, its ports, its records, and its verdict over what the nodes wrote."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import math
import os
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from adpsgd_cli.demo.cluster import Cluster, NodeProcess, free_ports
from adpsgd_cli.demo.history import History
from adpsgd_cli.demo.interruption import Interruption
from adpsgd_cli.demo.plan import DemoPlan, Task
from adpsgd_cli.demo.plot import draw
from adpsgd_cli.demo.verdict import read_result, relative_distance, summarize, told, widest_distance
from adpsgd_cli.demo.view import line, table
from adpsgd_cli.main import main
from adpsgd_node.checkpoint.model_file import StoredTensor, write_model
from adpsgd_node.core.membership.member import Member
from adpsgd_node.errors import AdpsgdError, ConfigError
from adpsgd_node.ids import NodeId
from adpsgd_node.wire.admin import Status
from support.status import example_status


def status_of(name: str, **changes: object) -> Status:
    own = example_status().self_member
    member = Member(NodeId(name, 1), own.address, own.incarnation, own.state, own.phase)
    return dataclasses.replace(example_status(), self_member=member, **changes)  # type: ignore[arg-type]


async def sleeping_node(name: str, folder: Path) -> NodeProcess:
    """A node as the demo sees it: a process in a session of its own, here one that only sleeps."""
    process = await asyncio.create_subprocess_exec(  # it outlives the test unless it is killed
        sys.executable, "-c", "import time; time.sleep(60)", start_new_session=True
    )
    return NodeProcess(name, "127.0.0.1:1", folder / name, folder / f"{name}.log", folder / "none.sock", process)


def model_of(values: list[float]) -> list[StoredTensor]:
    data = np.array(values, np.float32)
    return [StoredTensor("w", "float32", data.shape, data.view(np.uint8))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, "nodes = 0: expected 1 to 64"),
        ({"nodes": 1, "kill": True}, "nodes = 1: expected at least 2, as --kill needs a survivor"),
        ({"epochs": -1.0}, "epochs = -1.0: expected a number above 0"),
        ({"timeout_s": 0.0}, "timeout_s = 0.0: expected 1 to 86400 seconds"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_plan_that_cannot_be_carried_out_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DemoPlan(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "digit"], "task = 'digit': expected one of digits, char-lm; did you mean digits?"),
        (["--topology", "custom"], "topology = custom: expected one without edges"),
        (["--codec", "fp8"], "codec = 'fp8': expected one of fp32, bf16"),
    ],
)
def test_wrong_option_ends_the_demo_before_it_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["adpsgd-node", "demo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_last_node_is_the_one_to_kill() -> None:
    assert DemoPlan(nodes=3, kill=True).victim == "node-2"
    assert DemoPlan(nodes=3).victim is None
    assert Task.CHAR_LM.module == "adpsgd_node.tasks.char_lm"


def test_free_ports_are_distinct_and_free() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


async def test_killed_node_takes_its_trainer_with_it(tmp_path: Path) -> None:
    cluster = Cluster(DemoPlan(nodes=2, kill=True, output=tmp_path))
    daemon, trainer = await sleeping_node("node-1", tmp_path), await sleeping_node("trainer", tmp_path)
    cluster.nodes["node-1"] = daemon
    cluster.kill("node-1", trainer.process.pid)
    assert await asyncio.wait_for(daemon.process.wait(), 30) == -signal.SIGKILL
    assert await asyncio.wait_for(trainer.process.wait(), 30) == -signal.SIGKILL
    assert cluster.survivors == []
    await cluster.stop()


async def test_stopping_leaves_no_process_and_no_folder_behind(tmp_path: Path) -> None:
    cluster = Cluster(DemoPlan(output=tmp_path))
    for name in ("node-0", "node-1"):
        cluster.nodes[name] = await sleeping_node(name, tmp_path)
    await cluster.stop()
    assert [node.returncode for node in cluster.nodes.values()] == [-signal.SIGTERM, -signal.SIGTERM]
    assert not cluster._runtime.exists()


async def test_first_signal_cancels_and_later_ones_are_ignored() -> None:
    cleaned: list[str] = []

    async def demo() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # an impatient second one, while the nodes are being ended
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            cleaned.append("nodes")

    task = asyncio.ensure_future(demo())
    with Interruption(task) as interruption:
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert interruption.signal_number == signal.SIGINT
    assert cleaned == ["nodes"]


def test_history_knows_the_whole_run_from_the_best_informed_node() -> None:
    history = History()
    assert history.fraction == 0.0
    history.add(1.0, status_of("node-0", samples_total=400, samples_target=1000, exchanges_initiated=5))
    history.add(1.0, status_of("node-1", samples_total=500, samples_target=0, exchanges_initiated=7))
    assert (history.samples_total, history.samples_target, history.fraction) == (500, 1000, 0.5)
    assert history.exchanges_total == 12


def test_history_stays_bounded_and_keeps_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adpsgd_cli.demo.history.MAX_POINTS", 10)
    history = History()
    for index in range(100):
        history.add(float(index), status_of("node-0", step=index))
    points = history.points["node-0"]
    assert len(points) <= 11
    assert points[0].step == 0
    assert points[-1].step >= 98


async def test_progress_is_shown_in_words_and_as_a_table(tmp_path: Path) -> None:
    cluster, history = Cluster(DemoPlan(nodes=3, kill=True, output=tmp_path)), History()
    try:
        for name in ("node-0", "node-1", "node-2"):
            cluster.nodes[name] = await sleeping_node(name, tmp_path)
        history.add(1.0, status_of("node-0", consensus_distance=math.nan))
        cluster.kill("node-2", 0)
        text = line(cluster, history, 1.5)
        assert text.startswith("[  1.5 s]  50% of 12800 samples, 90 exchanges; node-0 training step 100 loss 0.25")
        assert "node-1 starting" in text
        assert "node-2 killed" in text
        console = Console(file=io.StringIO(), width=160)
        console.print(table(cluster, history, 1.5))
        assert isinstance(console.file, io.StringIO)
        (row,) = (row for row in console.file.getvalue().splitlines() if "node-0" in row)
        assert [cell.strip() for cell in row.strip("│").split("│")] == [
            *("node-0", "training", "100", "812.5", "0.25", "0.75", "170", "-")
        ]
    finally:
        await cluster.stop()


def test_relative_distance_is_that_of_the_whole_vectors() -> None:
    one = {"a": np.array([3.0], np.float32), "b": np.array([[4.0]], np.float32)}
    other = {"a": np.array([3.0], np.float32), "b": np.array([[4.5]], np.float32)}
    assert relative_distance(one, other) == pytest.approx(0.5 / 5.0)
    assert relative_distance(one, one) == 0.0


def test_distance_to_a_model_that_is_not_finite_is_within_no_tolerance() -> None:
    one, other = {"a": np.ones(2, np.float32)}, {"a": np.array([1.0, np.nan], np.float32)}
    assert not relative_distance(one, other) <= 1e9


def test_widest_distance_is_taken_over_all_pairs(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.safetensors" for index in range(3)]
    for path, value in zip(paths, (1.0, 1.1, 0.9), strict=True):
        write_model(path, model_of([value]), {})
    assert widest_distance(paths) == pytest.approx(0.2 / 0.9, rel=1e-4)
    assert widest_distance(paths[:1]) == 0.0
    write_model(paths[1], model_of([1.0, 2.0]), {})
    with pytest.raises(AdpsgdError, match="holds other tensors than"):
        widest_distance(paths)


def test_result_of_a_task_is_read_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert read_result(path) == {}
    path.write_text('{"test_accuracy": 0.5, "note": "x"}')
    assert read_result(path) == {"test_accuracy": 0.5}
    path.write_text("[")
    with pytest.raises(AdpsgdError, match=r"cannot read .*result\.json"):
        read_result(path)


async def test_summary_counts_survivors_and_tells_the_worst_figure(tmp_path: Path) -> None:
    plan = DemoPlan(nodes=3, kill=True, output=tmp_path)
    cluster, history = Cluster(plan), History()
    try:
        for name, accuracy in (("node-0", 0.98), ("node-1", 0.97), ("node-2", None)):
            node = cluster.nodes[name] = await sleeping_node(name, tmp_path)
            if accuracy is None:
                continue
            write_model(node.model, model_of([1.0]), {"steps": "203", "samples": "6496"})
            node.result.write_text(json.dumps({"test_accuracy": accuracy, "test_loss": 1 - accuracy}))
        cluster.kill("node-2", 0)
        history.add(1.0, status_of("node-0"))
        summary = summarize(plan, cluster, history, 12.3456)
    finally:
        await cluster.stop()
    assert {"nodes": 3, "survivors": 2, "samples_total": 6496, "steps_total": 203}.items() <= summary.items()
    assert {
        "test_accuracy": 0.97,
        "consensus_distance": 0.0,
        "wall_s": 12.346,
        "killed": "node-2",
    }.items() <= summary.items()
    assert summary["model"] == str(tmp_path / "node-0" / "model.safetensors")
    words = told({**summary, "plot": "plot.png"})
    assert "2 of 3 nodes finished in 12.346 s" in words
    assert "test accuracy 0.9700" in words


def test_plot_is_drawn_also_where_figures_are_missing(tmp_path: Path) -> None:
    history = History()
    history.add(0.0, status_of("node-0", loss=math.nan, consensus_distance=math.nan))
    history.add(1.0, status_of("node-0", loss=0.5, consensus_distance=0.0))
    history.add(2.0, status_of("node-0"))
    draw(history.points, "node-0", 1.5, tmp_path / "plot.png")
    draw({}, None, None, tmp_path / "empty.png")
    for name in ("plot.png", "empty.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

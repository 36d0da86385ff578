"""`status` finds the daemons of this machine, shows one, and says so when there is none."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import sys
import types
from pathlib import Path

import pytest
from rich.console import Console

from adpsgd_cli.main import main
from adpsgd_cli.status_view import to_table
from adpsgd_node.daemon.status_json import to_json
from adpsgd_node.errors import UnreachableError
from adpsgd_node.wire.admin import Status
from support.status import example_status


class AnsweringSockets(types.ModuleType):
    """Stands where `daemon.admin` does: some sockets answer, the others are what a killed daemon leaves behind."""

    def __init__(self, folder: Path) -> None:
        super().__init__("adpsgd_node.daemon.admin")
        self.folder = folder
        self.answers: dict[Path, list[Status]] = {}

    def add(self, name: str, *statuses: Status) -> Path:
        self.folder.mkdir(exist_ok=True)
        path = self.folder / name
        path.touch()
        self.answers[path] = list(statuses)
        return path

    async def fetch_status(self, path: Path, timeout_s: float) -> Status:
        if not self.answers.get(path):
            raise UnreachableError(f"nobody answers at {path}")
        return self.answers[path].pop(0)


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnsweringSockets:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    stand_in = AnsweringSockets(tmp_path / "adpsgd-node")
    monkeypatch.setitem(sys.modules, "adpsgd_node.daemon.admin", stand_in)
    return stand_in


def status(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["adpsgd-node", "status", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def rendered(shown: Status) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(to_table(shown))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_no_node_is_said_with_the_way_to_start_one(
    sockets: AnsweringSockets, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sockets.add("demo.dead.sock")
    assert status(monkeypatch) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("adpsgd-node: no node runs here")
    assert "adpsgd-node up" in captured.err
    assert captured.out == ""


def test_the_one_live_node_is_found_beside_a_dead_ones_socket(
    sockets: AnsweringSockets, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sockets.add("demo.dead.sock")
    sockets.add("demo.node-0.sock", example_status("node-0"))
    assert status(monkeypatch, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["node"] == "node-0"
    assert captured.err == ""


def test_of_several_nodes_the_first_is_shown_and_the_others_are_named(
    sockets: AnsweringSockets, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("node-1", "node-0"):
        sockets.add(f"demo.{name}.sock", example_status(name))
    assert status(monkeypatch, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["node"] == "node-0"
    assert "node-1 (run demo)" in captured.err


def test_a_node_is_chosen_by_name_or_socket(
    sockets: AnsweringSockets, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sockets.add("demo.node-0.sock", example_status("node-0"))
    path = sockets.add("demo.node-1.sock", example_status("node-1"), example_status("node-1"))
    assert status(monkeypatch, "--json", "--node", "node-1") == 0
    assert status(monkeypatch, "--json", "--socket", str(path)) == 0
    assert [json.loads(line)["node"] for line in capsys.readouterr().out.splitlines()] == ["node-1", "node-1"]


def test_a_node_is_chosen_by_its_run(
    sockets: AnsweringSockets, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in ("first", "second"):
        sockets.add(f"{run}.node-0.sock", example_status("node-0", run))
    assert status(monkeypatch, "--json", "--run", "second") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["run"] == "second"
    assert captured.err == ""
    assert status(monkeypatch, "--run", "third") == 1
    assert "no node of run third runs here" in capsys.readouterr().err


def test_an_unknown_name_is_refused_with_the_known_ones(
    sockets: AnsweringSockets, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sockets.add("demo.node-0.sock", example_status("node-0"))
    assert status(monkeypatch, "--node", "node-7") == 1
    assert "no node named node-7 runs here; running: node-0" in capsys.readouterr().err


def test_watching_ends_with_the_node(
    sockets: AnsweringSockets, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("adpsgd_cli.status.WATCH_INTERVAL_S", 0.0)
    statuses = [dataclasses.replace(example_status(), step=step) for step in (1, 2, 3)]
    sockets.add("demo.node-0.sock", *statuses)
    assert status(monkeypatch, "--json", "--watch") == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["step"] for line in captured.out.splitlines()] == [1, 2, 3]
    assert "node-0 no longer answers" in captured.err


def test_table_shows_node_run_and_members(
    sockets: AnsweringSockets, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sockets.add("demo.node-0.sock", example_status())
    assert status(monkeypatch) == 0
    text = capsys.readouterr().out
    for expected in (
        "run demo, node node-0: training",
        "6400 of 12800 samples (50%)",
        "INSECURE",
        "clock stands still",
        "checkpoint /somewhere/out/checkpoints/000004, 31.5 s ago",
        "exchanges nothing with node-9 for now: norm jump",
    ):
        assert expected in text
    (peer,) = (line for line in text.splitlines() if "node-9" in line and "│" in line)
    assert [cell.strip() for cell in peer.strip("│").split("│")] == [
        *("node-9", "suspect", "settling", "90", "2880", "127.0.0.1:7401", "yes")
    ]


def test_healthy_node_shows_neither_warning() -> None:
    text = rendered(dataclasses.replace(example_status(), insecure=False, problem="", samples_target=0))
    assert "INSECURE" not in text
    assert "problem" not in text
    assert "6400 samples, no target" in text


def test_what_is_not_known_yet_is_a_dash_or_null() -> None:
    unknown = dict.fromkeys(("loss", "accuracy", "consensus_distance", "checkpoint_age_s"), math.nan)
    blank = dataclasses.replace(example_status(), checkpoint="", **unknown)
    assert "loss -, accuracy -, consensus distance -" in rendered(blank)
    shown = json.loads(json.dumps(to_json(blank), allow_nan=False))
    assert [shown[name] for name in (*unknown, "checkpoint")] == [None] * 5
    assert "checkpoint" not in rendered(blank)

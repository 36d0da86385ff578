"""`adpsgd-node simulate training`: what it prints and draws, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adpsgd_cli.main import build
from adpsgd_node.config import settings
from adpsgd_node.errors import ConfigError
from adpsgd_node.sim.training.scenario import TrainingScenario

TRAINING = ["simulate", "training", "--steps", "20"]


def last_line(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(build(), [*TRAINING, *arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_the_last_line_is_one_json_object_with_the_figures() -> None:
    figures = last_line("--nodes", "8", "--seed", "3", "--slow", "n1=2", "--slow", "n2=5,n3=4", "--crash", "n4@0.7")

    expected = {"nodes": 8, "steps_total": 160, "algorithm": "ad-psgd", "seed": 3, "straggler": 5.0, "stopped": ""}
    assert {key: figures[key] for key in expected} == expected
    measured = {
        *("samples_per_s", "consensus_distance", "wall_s", "time_to_target_s", "samples_to_target"),
        *("bytes_per_node", "final_loss", "ideal_fraction", "speedup", "exchanges", "staleness_mean"),
    }
    assert measured <= figures.keys()
    assert 0 < figures["ideal_fraction"] < 1
    assert figures["wall_s"] >= 0


def test_a_run_that_stopped_says_so_and_ends_in_good_order() -> None:
    figures = last_line("--algorithm", "allreduce", "--crash", "n2@1", "--detection", "3")

    assert "n02" in figures["stopped"]
    assert figures["duration_s"] == 4.0


def test_without_json_the_figures_are_lines_for_people() -> None:
    result = CliRunner().invoke(build(), [*TRAINING, "--nodes", "4", "--algorithm", "a-psgd"])

    assert result.exit_code == 0, result.output
    assert "4 nodes, a-psgd, seed 0" in result.stdout
    assert "staleness:" in result.stdout
    assert "took:" in result.stdout


def test_a_sweep_has_a_row_for_every_combination(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"

    found = last_line("--sweep", "nodes=2,4", "--sweep", "straggler=1,10", "--csv", str(table), "--network", "rack")

    assert [(row["nodes"], row["straggler"]) for row in found["rows"]] == [(2, 1), (2, 10), (4, 1), (4, 10)]
    assert found["seed"] == 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["samples_per_s"]) for row in rows] == [row["samples_per_s"] for row in found["rows"]]


@pytest.mark.parametrize(
    ("suffix", "swept"),
    [
        ("png", []),
        ("svg", ["--sweep", "nodes=2,4", "--scale-rate", "--learning-rate", "0.01"]),
        ("svg", ["--sweep", "straggler=1,10", "--sweep", "algorithm=ad-psgd,allreduce"]),
        ("svg", ["--sweep", "topology=ring,complete", "--sweep", "nodes=3"]),
    ],
)
def test_a_plot_is_drawn(tmp_path: Path, suffix: str, swept: list[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plot.{suffix}"

    last_line("--nodes", "4", *swept, "--plot", str(path))

    assert path.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--nodes", "many"], r"nodes = 'many': expected a whole number \(set by --nodes\)"),
        (["--slow", "n0=2", "--slow", "n0=3"], "each node once"),
        (["--step-distribution", "trace:/no/such/file"], "/no/such/file"),
        (["--links", "/no/such/file"], "/no/such/file"),
        (["--sweep", "color=red"], "color=red"),
        (["--sweep", "nodes=4,two"], "'two'"),
        (["--plot", "plot.txt"], r"\.png, \.svg or \.pdf"),
        (["--plot", "/no/such/folder/plot.png"], "/no/such/folder"),
        (["--csv", "/no/such/folder/rows.csv"], "/no/such/folder"),
    ],
)
def test_what_cannot_be_simulated_is_refused(wrong: list[str], said: str) -> None:
    result = CliRunner().invoke(build(), [*TRAINING, "--nodes", "2", *wrong])

    assert isinstance(result.exception, ConfigError)
    with pytest.raises(ConfigError, match=said):
        raise result.exception


def test_the_environment_of_a_node_does_not_change_a_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADPSGD_TOPOLOGY", "ring")
    monkeypatch.setenv("ADPSGD_NO_SUCH_SETTING", "1")

    assert last_line("--nodes", "2")["topology"] == "complete"


def test_help_offers_every_setting_of_a_scenario_beside_the_other_simulations() -> None:
    runner = CliRunner()

    text = runner.invoke(build(), ["simulate", "training", "--help"], env={"COLUMNS": "200"}).output

    for setting in settings(TrainingScenario):
        assert f"{setting.flag} " in text or f"{setting.flag}/" in text or f"{setting.flag}\n" in text, setting.flag
    listed = runner.invoke(build(), ["simulate", "--help"], env={"COLUMNS": "200"}).output
    assert all(name in listed for name in ("membership", "faults", "training"))

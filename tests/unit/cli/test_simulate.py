"""`adpsgd-node simulate`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adpsgd_cli.main import build
from adpsgd_node.errors import ConfigError
from adpsgd_node.sim import FaultRun, FaultScenario, Network


def test_the_last_line_is_one_json_object_with_the_figures() -> None:
    result = CliRunner().invoke(
        build(), ["simulate", "membership", "--members", "16", "--minutes", "1", "--loss", "0", "--seed", "3", "--json"]
    )

    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    expected = {"members": 16, "preset": "lan", "loss": 0.0, "seed": 3, "false_deaths": 0, "converged": True}
    assert {key: figures[key] for key in expected} == expected
    assert 4 <= figures["detection_s_max"] <= 15  # a suspect's time to refute, and the limit of the `lan` preset
    assert figures["messages_per_node_s"] > 1
    assert figures["wall_s"] >= 0


def test_without_json_the_figures_are_lines_for_people() -> None:
    result = CliRunner().invoke(
        build(), ["simulate", "membership", "--members", "4", "--minutes", "0.5", "--crash", "0"]
    )

    assert result.exit_code == 0, result.output
    assert "4 members, preset lan, loss 5.0%" in result.stdout
    assert "known to all at last:  not measured" in result.stdout


def test_an_unknown_preset_is_refused_by_name() -> None:
    result = CliRunner().invoke(build(), ["simulate", "membership", "--preset", "moon"])

    assert isinstance(result.exception, ConfigError)
    assert "moon" in str(result.exception)


FAULTS = ["simulate", "faults", "--nodes", "4", "--seconds", "4"]


def test_faults_end_with_one_json_object_of_all_seeds() -> None:
    result = CliRunner().invoke(build(), [*FAULTS, "--seeds", "2", "--first-seed", "7", "--json"])

    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    expected = {"nodes": 4, "first_seed": 7, "seeds": 2, "failures": [], "mass_drift": 0, "stuck": 0, "unconverged": 0}
    assert {key: figures[key] for key in expected} == expected
    assert {"converge_s_max", "converge_s_median", "exchanges", "broken", "settled", "wall_s"} <= figures.keys()


def test_a_failing_seed_is_named_with_the_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "connected", lambda _self, source, target: "n0:7000" not in (source, target))

    result = CliRunner().invoke(build(), [*FAULTS, "--seeds", "1", "--first-seed", "5"])

    assert result.exit_code == 1
    assert "seed 5 fails:" in result.stdout
    assert "simulate faults --nodes 4 --seconds 4 --loss 0.05 --seed 5 --trace seed-5.txt" in result.stdout
    assert "failing seeds:         1" in result.stdout


def test_one_seed_writes_its_transcript(tmp_path: Path) -> None:
    path = tmp_path / "seed.txt"

    result = CliRunner().invoke(build(), [*FAULTS, "--seed", "3", "--trace", str(path)])

    assert result.exit_code == 0, result.output
    head, *lines = path.read_text().splitlines()
    assert head.startswith("> faults nodes=4 seconds=4.0 ")
    assert head.endswith(" seed=3")
    assert lines[-1] == "all is well"
    assert len(lines) > 50


def test_seeds_that_fail_become_transcripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FaultScenario.run

    def seed_6_fails(scenario: FaultScenario, **given: Any) -> FaultRun:
        with monkeypatch.context() as patch:
            if scenario.seed == 6:
                patch.setattr(Network, "connected", lambda _self, source, target: "n0:7000" not in (source, target))
            return run(scenario, **given)

    monkeypatch.setattr(FaultScenario, "run", seed_6_fails)
    folder = tmp_path / "failed" / "seeds"

    result = CliRunner().invoke(build(), [*FAULTS, "--seeds", "3", "--first-seed", "5", "--trace", str(folder)])

    assert result.exit_code == 1
    (path,) = folder.iterdir()
    assert f"transcript: {path}" in result.stdout
    head, *lines = path.read_text().splitlines()
    assert head.endswith(" seed=6")
    assert any(line.startswith("WRONG: views are wrong") for line in lines), lines[-3:]


@pytest.mark.parametrize(
    "wrong",
    [["--trace", "/dev/null/x"], ["--nodes", "2"], ["--seed", "1", "--trace", "/no/such/x.txt"]],
)
def test_faults_that_cannot_be_simulated_are_refused(wrong: list[str]) -> None:
    result = CliRunner().invoke(build(), [*FAULTS, *wrong])

    assert isinstance(result.exception, ConfigError)

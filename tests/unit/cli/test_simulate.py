"""`adpsgd-node simulate`: what it prints, and what it refuses."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from adpsgd_cli.main import build
from adpsgd_node.errors import ConfigError


def test_the_last_line_is_one_json_object_with_the_figures() -> None:
    result = CliRunner().invoke(
        build(), ["simulate", "membership", "--members", "16", "--minutes", "1", "--loss", "0", "--seed", "3", "--json"]
    )

    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    expected = {"members": 16, "preset": "lan", "loss": 0.0, "seed": 3, "false_deaths": 0, "converged": True}
    assert {key: figures[key] for key in expected} == expected
    assert figures["detection_s_max"] > 0
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

"""Help is quick because it imports little, and tells what a user needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from adpsgd_cli.main import build
from adpsgd_node import errors
from adpsgd_node.config import settings
from adpsgd_node.daemon.settings import NodeConfig

HEAVY = ("torch", "grpc", "aiohttp", "matplotlib", "numpy", "google.protobuf", "sklearn")

PROBE = """
import json, sys
from adpsgd_cli.main import main
try:
    main()
except SystemExit as end:
    print(json.dumps({"code": end.code, "modules": [name for name in sys.modules]}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["up", "--help"], ["demo", "--help"], ["status", "--help"]),
        *(["drain", "--help"], ["checkpoint", "--help"], ["version"]),
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    ended = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True)
    report = json.loads(ended.stderr.splitlines()[-1])
    assert report["code"] == 0
    assert "adpsgd_cli.main" in report["modules"]
    assert [name for name in HEAVY if name in report["modules"]] == []


def test_help_of_up_offers_every_setting() -> None:
    help_text = CliRunner().invoke(build(), ["up", "--help"], env={"COLUMNS": "200"}).output
    for setting in settings(NodeConfig):
        assert f"{setting.flag} " in help_text, setting.flag
    assert "--trainer-fd" not in help_text


def test_every_exit_code_is_in_the_help() -> None:
    help_text = " ".join(CliRunner().invoke(build(), ["up", "--help"], env={"COLUMNS": "200"}).output.split())
    codes = {getattr(errors, name).exit_code for name in errors.__all__}
    for code in sorted({0, *codes}):
        assert f" {code} " in help_text.partition("Exit codes:")[2], code


def test_version_is_told() -> None:
    result = CliRunner().invoke(build(), ["version"])
    assert (result.exit_code, result.output) == (0, "adpsgd-node 0.1.0 (protocol 1)\n")

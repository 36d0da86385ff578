"""A script without a daemon starts one as a child; here the child is a stand-in."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import adpsgd_node
from adpsgd_node.errors import ConfigError, DaemonLostError
from adpsgd_node.trainer import attach

TESTS = Path(__file__).parents[2]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have `sys.executable` run the stand-in, which records what it was given."""
    stand_in = tmp_path / "python"
    program = shlex.quote(str(TESTS / "support" / "child_daemon.py"))
    stand_in.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(TESTS))} exec {shlex.quote(sys.executable)} {program} "$@"\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    monkeypatch.delenv("ADPSGD_TRAINER_FD", raising=False)
    return tmp_path / "record.json"


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(2, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_child_daemon_gets_the_options_as_flags_and_serves_the_run(record: Path) -> None:
    model, optimizer = trained()
    node = adpsgd_node.join(
        model, optimizer, record=record, behave="serve", exchanges_per_step=2, insecure=True, seeds=["a:1", "b:2"],
        advertise=None,
    )  # fmt: skip
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert node.step == 1
    assert node.finish().members == 3
    arguments = json.loads(record.read_text())["arguments"]
    assert arguments[:4] == ["-m", "adpsgd_cli", "up", "--trainer-fd"]
    assert arguments[5:] == [
        f"--record={record}", "--behave=serve", "--exchanges-per-step=2", "--insecure", "--seeds=a:1,b:2",
    ]  # fmt: skip


def test_a_child_that_ends_before_it_answers_is_named_with_its_exit_code(record: Path) -> None:
    with pytest.raises(DaemonLostError, match="it ended with exit code 4"):
        adpsgd_node.join(*trained(), record=record, behave="exit")


@pytest.mark.parametrize("behave", ["serve", "stubborn"])
def test_an_exception_in_training_ends_the_child_too(
    record: Path, behave: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "STOP_LIMIT_S", 0.2)
    node = adpsgd_node.join(*trained(), record=record, behave=behave)
    pid = json.loads(record.read_text())["pid"]
    assert not gone(pid)
    node.detach()
    assert gone(pid)


def test_an_option_that_is_no_flag_is_named(record: Path) -> None:
    with pytest.raises(ConfigError, match="option seeds of join"):
        adpsgd_node.join(*trained(), seeds={"a": 1})
    assert not record.exists()

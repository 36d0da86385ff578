"""What `up` accepts as a script, and how it refuses the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adpsgd_node.daemon.script import Script
from adpsgd_node.errors import TrainerError


def test_file_runs_under_the_daemons_own_python_with_its_arguments(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text("")
    assert Script.file(str(path), ("--lr", "0.1")).argv == (sys.executable, str(path), "--lr", "0.1")


def test_missing_file_is_named_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"tarin\.py not found.*give its path"):
        Script.file(str(tmp_path / "tarin.py"))


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"is a directory; name the Python file"):
        Script.file(str(tmp_path))


def test_module_of_an_installed_package_runs_with_minus_m() -> None:
    script = Script.module("adpsgd_node.tasks.digits", ("--epochs", "2"))
    assert script.argv == (sys.executable, "-m", "adpsgd_node.tasks.digits", "--epochs", "2")


def test_module_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_training.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert Script.module("my_training").name == "my_training"


@pytest.mark.parametrize("module", ["no_such_package.train", "", ".train", "train-it"])
def test_module_that_is_not_there_is_named_with_the_fix(module: str) -> None:
    with pytest.raises(TrainerError, match=r"not found.*install it"):
        Script.module(module)

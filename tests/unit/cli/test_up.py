"""`up` finds the script, hands it its arguments untouched, and refuses what cannot run before anything starts."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from adpsgd_cli.main import main
from adpsgd_cli.up import DEFAULT_SCRIPT, find_script
from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.daemon.settings import NodeConfig
from adpsgd_node.errors import BindError, ConfigError

Call = tuple[NodeConfig, tuple[str, ...] | None, int | None]


class RecordingDaemon(types.ModuleType):
    """Stands where `daemon.app` does: notes what it is asked to run, and ends as told."""

    def __init__(self) -> None:
        super().__init__("adpsgd_node.daemon.app")
        self.calls: list[Call] = []
        self.outcome: int | Exception = 0

    def run(self, config: NodeConfig, script: tuple[str, ...] | None, trainer_fd: int | None) -> int:
        self.calls.append((config, script, trainer_fd))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RecordingDaemon:
    stand_in = RecordingDaemon()
    monkeypatch.setitem(sys.modules, "adpsgd_node.daemon.app", stand_in)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("raise SystemExit('must not run here')")
    return stand_in


def up(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["adpsgd-node", "up", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_without_script_the_digits_task_runs(daemon: RecordingDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    assert up(monkeypatch, "--name", "a") == 0
    ((config, script, trainer_fd),) = daemon.calls
    assert (config.name, script, trainer_fd) == ("a", DEFAULT_SCRIPT, None)


def test_what_follows_the_script_is_the_scripts(daemon: RecordingDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    up(monkeypatch, "--codec", "bf16", "train.py", "--codec", "own", "--help", "-m", "x", "--", "-v")
    ((config, script, _),) = daemon.calls
    assert config.exchange.codec is CodecName.BF16
    assert script == ("train.py", "--codec", "own", "--help", "-m", "x", "--", "-v")


def test_what_follows_a_module_is_the_modules(daemon: RecordingDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    up(monkeypatch, "-m", "train", "--lr", "0.1", "--name", "own")
    ((config, script, _),) = daemon.calls
    assert script == ("-m", "train", "--lr", "0.1", "--name", "own")
    assert config.name != "own"


def test_double_dash_ends_the_options(daemon: RecordingDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    up(monkeypatch, "--", "train.py", "-v")
    assert daemon.calls[0][1] == ("train.py", "-v")


def test_daemon_started_by_a_trainer_runs_no_script(daemon: RecordingDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    up(monkeypatch, "--trainer-fd", "9")
    assert daemon.calls[0][1:] == (None, 9)


def test_settings_come_from_file_environment_and_options(
    daemon: RecordingDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "node.toml").write_text('name = "file"\nrun = "file"\nseed = 1\n[exchange]\nwindow = 2\n')
    monkeypatch.setenv("ADPSGD_RUN", "environment")
    monkeypatch.setenv("ADPSGD_SEED", "2")
    up(monkeypatch, "--config", "node.toml", "--seed", "3", "--no-insecure")
    config = daemon.calls[0][0]
    assert (config.name, config.run, config.seed, config.exchange.window) == ("file", "environment", 3, 2)


def test_the_environment_may_name_the_file(
    daemon: RecordingDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "node.toml").write_text('name = "file"\n')
    monkeypatch.setenv("ADPSGD_CONFIG", str(tmp_path / "node.toml"))
    up(monkeypatch)
    assert daemon.calls[0][0].name == "file"


def test_exit_code_of_the_daemon_is_passed_on(daemon: RecordingDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.outcome = 137
    assert up(monkeypatch) == 137


def test_error_is_one_line_with_its_own_exit_code(
    daemon: RecordingDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.outcome = BindError("127.0.0.1:7400 is taken: choose another with --listen")
    assert up(monkeypatch) == 3
    assert capsys.readouterr().err == "adpsgd-node: 127.0.0.1:7400 is taken: choose another with --listen\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nix.py"], "script nix.py does not exist in"),
        (["."], "script . is a folder"),
        (["python", "train.py"], "python is no script: leave it out"),
        (["-m", "nix.nothing"], "no module named nix.nothing"),
        (["-m"], "-m needs the name of a module"),
        (["--window", "99"], "window = 99: expected 1 to 64 (set by --window)"),
        (["--config", "nix.toml"], "cannot read the configuration file nix.toml"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(
    daemon: RecordingDaemon,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert up(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err
    assert daemon.calls == []


def test_unknown_option_is_refused_with_the_nearest_one(
    daemon: RecordingDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert up(monkeypatch, "--windo", "3") == 2
    assert "--window" in capsys.readouterr().err
    assert daemon.calls == []


def test_looking_for_a_module_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "loud"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "train.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert find_script("loud.train", ["x"], module=True) == ("-m", "loud.train", "x")
    with pytest.raises(ConfigError, match=r"loud\.nix"):
        find_script("loud.nix", [], module=True)
    with pytest.raises(ConfigError, match=r"loud\.train\.x"):
        find_script("loud.train.x", [], module=True)


def test_default_script_exists() -> None:
    assert find_script(DEFAULT_SCRIPT[1], [], module=True) == DEFAULT_SCRIPT

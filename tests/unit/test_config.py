"""Composition of settings: order of weight, and errors that name the offender and the nearest right key."""

from __future__ import annotations

import enum
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adpsgd_node.config import child_environment, compose, config_path, runtime_dir, settings, trainer_fd
from adpsgd_node.errors import ConfigError
from adpsgd_node.setting import SettingError


class Mood(enum.Enum):
    VERY_CALM = enum.auto()
    EAGER = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    steps: int = 1
    wait_s: float = 0.5
    mood: Mood = Mood.VERY_CALM
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingError("steps", self.steps, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    name: str = "nobody"
    loud: bool = False
    peers: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None
    pace: Pace = field(default_factory=Pace)


def written(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text)
    return path


def test_without_any_source_the_defaults_hold() -> None:
    assert compose(Config, None, {}, {}) == Config()


def test_environment_outweighs_toml_and_flags_outweigh_both(tmp_path: Path) -> None:
    path = written(tmp_path, 'name = "toml"\n[pace]\nsteps = 2\nwait_s = 2\nmood = "eager"\n')
    environ = {"ADPSGD_STEPS": "3", "ADPSGD_WAIT_S": "3.5"}
    config = compose(Config, path, {"steps": "4", "wait_s": None}, environ)
    assert config == Config(name="toml", pace=Pace(steps=4, wait_s=3.5, mood=Mood.EAGER))


def test_text_becomes_the_type_of_its_field() -> None:
    environ = {
        "ADPSGD_LOUD": "yes",
        "ADPSGD_PEERS": "a, b",
        "ADPSGD_PAIRS": "a:b,b:c",
        "ADPSGD_FOLDER": "out",
        "ADPSGD_LIMIT": "",
        "ADPSGD_MOOD": "very-calm",
    }
    config = compose(Config, None, {}, environ)
    assert (config.loud, config.peers, config.pairs) == (True, ("a", "b"), (("a", "b"), ("b", "c")))
    assert (config.folder, config.pace.limit, config.pace.mood) == (Path("out"), None, Mood.VERY_CALM)


def test_toml_arrays_become_tuples(tmp_path: Path) -> None:
    config = compose(Config, written(tmp_path, 'peers = ["a"]\npairs = [["a", "b"]]'), {}, {})
    assert (config.peers, config.pairs) == (("a",), (("a", "b"),))


def test_empty_list_is_no_entry_at_all() -> None:
    assert compose(Config, None, {"peers": ""}, {}).peers == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pace]\nstep = 1", r"unknown setting pace\.step in .*node\.toml: did you mean pace\.steps\?"),
        ("steps = 1", r"unknown setting steps in .*: did you mean pace\.steps\?"),
        ("[pacce]\nsteps = 1", r"unknown setting pacce.* in .*: did you mean pace"),
        ("zzzzzz = 1", r"unknown setting zzzzzz in .*: known are .*pace\.steps"),
        ("pace = 3", r"unknown setting pace in "),
        ('[pace]\nsteps = "many"', r"steps = 'many': expected a whole number \(set by pace\.steps in .*node\.toml\)"),
        ("[pace]\nsteps = true", r"steps = True: expected a whole number"),
        ("[pace]\nsteps = 1.5", r"steps = 1\.5: expected a whole number"),
        ("loud = 1", r"loud = 1: expected true or false"),
        ("name = 7", r"name = 7: expected text"),
        ("name = ", r"node\.toml is no valid TOML"),
    ],
)
def test_wrong_toml_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(Config, written(tmp_path, text), {}, {})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"ADPSGD_STEP": "1"}, r"unknown setting ADPSGD_STEP in the environment: did you mean ADPSGD_STEPS\?"),
        ({"ADPSGD_WAIT_S": "nan"}, r"wait_s = 'nan': expected a finite number \(set by ADPSGD_WAIT_S\)"),
        ({"ADPSGD_MOOD": "eagre"}, r"mood = 'eagre': expected one of very-calm, eager; did you mean eager\?"),
        ({"ADPSGD_PAIRS": "a:b:c"}, r"pairs = 'a:b:c': expected 2 values joined by a colon"),
        ({"ADPSGD_LOUD": "loud"}, r"loud = 'loud': expected true or false"),
        ({"ADPSGD_STEPS": "0"}, r"steps = 0: expected at least 1 \(set by ADPSGD_STEPS\)"),
    ],
)
def test_wrong_environment_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(Config, None, {}, environ)


def test_wrong_flag_is_named_as_typed() -> None:
    with pytest.raises(ConfigError, match=r"wait_s = 'soon': expected a finite number \(set by --wait\)"):
        compose(Config, None, {"wait_s": "soon"}, {})


def test_missing_toml_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration file .*nix\.toml: No such file"):
        compose(Config, tmp_path / "nix.toml", {}, {})


def test_variables_of_kubernetes_services_are_no_settings() -> None:
    environ = {
        "ADPSGD_NODE_SERVICE_HOST": "10.0.0.1",
        "ADPSGD_NODE_SERVICE_PORT": "7400",
        "ADPSGD_NODE_SERVICE_PORT_GRPC": "7400",
        "ADPSGD_NODE_PORT": "tcp://10.0.0.1:7400",
        "ADPSGD_NODE_PORT_7400_TCP": "tcp://10.0.0.1:7400",
        "ADPSGD_NODE_PORT_7400_TCP_ADDR": "10.0.0.1",
    }
    assert compose(Config, None, {}, environ) == Config()
    with pytest.raises(ConfigError, match="ADPSGD_HTTP_PORT"):
        compose(Config, None, {}, {"ADPSGD_HTTP_PORT": "7400"})


def test_variables_that_are_no_settings_are_let_through() -> None:
    assert compose(Config, None, {}, {"ADPSGD_TRAINER_FD": "7", "ADPSGD_CONFIG": "x", "PATH": "/bin"}) == Config()
    assert config_path({"ADPSGD_CONFIG": "node.toml"}) == Path("node.toml")
    assert config_path({}) is None


def test_setting_names_are_unique_so_that_flags_need_no_group() -> None:
    names = [setting.name for setting in settings(Config)]
    assert sorted(names) == sorted(set(names))
    assert {setting.flag for setting in settings(Config)} >= {"--wait", "--steps", "--name"}


def test_trainer_descriptor_is_read_and_checked() -> None:
    assert trainer_fd({}) is None
    assert trainer_fd({"ADPSGD_TRAINER_FD": "5"}) == 5
    with pytest.raises(ConfigError, match="ADPSGD_TRAINER_FD = 'five'"):
        trainer_fd({"ADPSGD_TRAINER_FD": "five"})


def test_child_does_not_inherit_settings_meant_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADPSGD_NAME", "parent")
    monkeypatch.setenv("ADPSGD_TRAINER_FD", "3")
    child = child_environment(overrides={"OTHER": "1"})
    assert "ADPSGD_NAME" not in child
    assert "ADPSGD_TRAINER_FD" not in child
    assert child["OTHER"] == "1"
    assert child["PATH"] == os.environ["PATH"]
    kept = child_environment(trainer_fd=9, keep_settings=True)
    assert (kept["ADPSGD_NAME"], kept["ADPSGD_TRAINER_FD"]) == ("parent", "9")


def test_runtime_folder_is_private_even_when_it_was_not(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    folder = runtime_dir(environ)
    assert folder == tmp_path / "adpsgd-node"
    folder.chmod(0o755)
    assert stat.S_IMODE(runtime_dir(environ).stat().st_mode) == 0o700


def test_runtime_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "adpsgd-node").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is not a folder of this user"):
        runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_runtime_folder_without_a_session_names_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert runtime_dir({}) == tmp_path / f"adpsgd-node-{os.getuid()}"

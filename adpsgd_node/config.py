"""Compose settings from a TOML file, the environment and flags; the only file that reads the environment.

A configuration is a tree of frozen dataclasses. A field whose type is a dataclass is a group (a TOML table); any other
field is a setting. A setting's name is unique in the tree, so flags (`--chunk-bytes`) and environment variables
(`ADPSGD_CHUNK_BYTES`) need no group: only the TOML file writes it (`[exchange]` `chunk_bytes`).
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from adpsgd_node.errors import ConfigError
from adpsgd_node.setting import SettingError, convert, shown

__all__ = [
    "ENVIRONMENT_PREFIX",
    "Setting",
    "child_environment",
    "compose",
    "config_path",
    "quiet_grpc",
    "runtime_dir",
    "settings",
    "trainer_fd",
]

ENVIRONMENT_PREFIX = "ADPSGD_"

_CONFIG = "ADPSGD_CONFIG"
_TRAINER_FD = "ADPSGD_TRAINER_FD"
_RESERVED = frozenset({_CONFIG, _TRAINER_FD})
"""Variables with our prefix that are no settings."""

_SERVICE_LINK = re.compile(
    r"ADPSGD_.*(_SERVICE_HOST|_SERVICE_PORT(_.*)?|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://.*")
"""Kubernetes tells every pod of a Service named `adpsgd-...` in variables with our prefix; no user set them."""

_MAX_TOML_BYTES = 1 << 20

Config = TypeVar("Config")


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of a configuration class."""

    path: tuple[str, ...]
    """Names of the groups around it and, last, its own."""
    type: Any
    owner: type[Any]
    """The dataclass it is a field of."""

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def flag(self) -> str:
        """As on the command line, where the unit is left to the help text: `--join-timeout` for `join_timeout_s`."""
        name = self.name if self.name.endswith("_per_s") else self.name.removesuffix("_s")
        return "--" + name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class _Given:
    value: object
    source: str
    """As the user would write it: `--window`, `ADPSGD_WINDOW` or `exchange.window in node.toml`."""


def compose(
    config_class: type[Config],
    toml_path: Path | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Build a `config_class` from defaults, TOML file, `ADPSGD_*` and flags, the later outweighing the earlier.

    Flags are given by setting name; one that is None was not given. Raises `ConfigError` for an unknown key (naming
    the nearest known one), a value that does not fit (naming key, value, source and what was expected), and a TOML
    file that cannot be read.
    """
    known = {setting.name: setting for setting in settings(config_class)}
    given: dict[str, _Given] = {}
    if toml_path is not None:
        given.update(_from_toml(toml_path, known))
    given.update(_from_environment(os.environ if environ is None else environ, known))
    for name, value in flags.items():
        assert name in known, f"flag {name} belongs to no setting of {config_class.__name__}"
        if value is not None:
            given[name] = _Given(value, known[name].flag)
    values = {name: _converted(known[name], entry) for name, entry in given.items()}
    try:
        return _build(config_class, values)
    except SettingError as error:
        entry = given.get(error.key)
        if entry is None:
            raise
        raise ConfigError(f"{error} (set by {entry.source})") from None


def config_path(environ: Mapping[str, str] | None = None) -> Path | None:
    """Name the TOML file that the environment asks for (`ADPSGD_CONFIG`), if it does."""
    text = (os.environ if environ is None else environ).get(_CONFIG, "")
    return Path(text) if text else None


def trainer_fd(environ: Mapping[str, str] | None = None) -> int | None:
    """Find the descriptor that ties this script to its daemon; None when no daemon started it."""
    text = (os.environ if environ is None else environ).get(_TRAINER_FD)
    if text is None:
        return None
    if not text.isdecimal():
        raise ConfigError(f"{_TRAINER_FD} = {shown(text)}: expected a file descriptor; the daemon sets it, unset yours")
    return int(text)


def quiet_grpc() -> None:
    """Keep gRPC's C core from writing to stderr, unless the user asked it to; call before gRPC is imported.

    What matters of its complaints comes back as errors, which we report ourselves.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def child_environment(
    *, trainer_fd: int | None = None, overrides: Mapping[str, str] | None = None, keep_settings: bool = False
) -> dict[str, str]:
    """Copy this process's environment for a child, without our `ADPSGD_*` unless `keep_settings`.

    `trainer_fd` names the descriptor under which the child finds its daemon; `overrides` are set last.
    """
    child = {
        name: value
        for name, value in os.environ.items()
        if name != _TRAINER_FD and (keep_settings or not name.startswith(ENVIRONMENT_PREFIX))
    }
    if trainer_fd is not None:
        child[_TRAINER_FD] = str(trainer_fd)
    child.update(overrides or {})
    return child


def runtime_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Make and name the folder of this user's daemon sockets: `$XDG_RUNTIME_DIR/adpsgd-node`, else one in /tmp.

    The folder is private (mode 0700): who may enter it may ask the daemons. Raises `ConfigError` when it belongs to
    someone else, as in /tmp anyone may have made it first.
    """
    base = (os.environ if environ is None else environ).get("XDG_RUNTIME_DIR", "")
    folder = Path(base) / "adpsgd-node" if base else Path(tempfile.gettempdir()) / f"adpsgd-node-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made ({error.strerror}): set XDG_RUNTIME_DIR to a folder of yours"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(
            f"{folder} is not a folder of this user: remove it, or set XDG_RUNTIME_DIR to a folder of yours"
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def settings(config_class: type[Any], groups: tuple[str, ...] = ()) -> Iterator[Setting]:
    """List the settings of a configuration class, those of its groups included."""
    hints = get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        path = (*groups, field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            yield from settings(hints[field.name], path)
        else:
            yield Setting(path, hints[field.name], config_class)


def _build(config_class: type[Config], values: Mapping[str, object]) -> Config:
    hints = get_type_hints(config_class)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(hints[field.name]):
            arguments[field.name] = _build(hints[field.name], values)
        elif field.name in values:
            arguments[field.name] = values[field.name]
    return config_class(**arguments)


def _from_toml(path: Path, known: Mapping[str, Setting]) -> dict[str, _Given]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_TOML_BYTES + 1)
        if len(content) > _MAX_TOML_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_TOML_BYTES} bytes: is it a configuration file?")
        tables = tomllib.loads(content.decode())
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid TOML: {error}") from None
    by_path = {setting.path: setting for setting in known.values()}
    groups = {setting.path[:depth] for setting in known.values() for depth in range(len(setting.path))}
    given = {}
    for key, value in _leaves(tables, (), groups):
        if key not in by_path:
            names = [".".join(name) for name in by_path]
            raise _unknown(".".join(key), str(path), names, {name.rpartition(".")[2]: name for name in names})
        given[key[-1]] = _Given(value, f"{'.'.join(key)} in {path}")
    return given


def _leaves(
    table: Mapping[str, object], above: tuple[str, ...], groups: Iterable[tuple[str, ...]]
) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, value in table.items():
        path = (*above, name)
        if isinstance(value, dict) and path in groups:
            yield from _leaves(value, path, groups)
        else:
            yield path, value


def _from_environment(environ: Mapping[str, str], known: Mapping[str, Setting]) -> dict[str, _Given]:
    variables = {ENVIRONMENT_PREFIX + name.upper(): name for name in known}
    given = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _RESERVED or _is_service_link(variable, text):
            continue
        if variable not in variables:
            raise _unknown(variable, "the environment", [*variables, _CONFIG], {})
        given[variables[variable]] = _Given(text, variable)
    return given


def _is_service_link(variable: str, text: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(variable)) or (variable.endswith("_PORT") and bool(_SERVICE_URL.match(text)))


def _unknown(key: str, source: str, known: Iterable[str], short: Mapping[str, str]) -> ConfigError:
    """Name the nearest known key, also where only the group is missing or wrong."""
    names = list(known)
    nearest = short.get(key.rpartition(".")[2]) or next(iter(difflib.get_close_matches(key, names, 1, 0.5)), None)
    advice = f"did you mean {nearest}?" if nearest else f"known are {', '.join(sorted(names))}"
    return ConfigError(f"unknown setting {key} in {source}: {advice}")


def _converted(setting: Setting, given: _Given) -> object:
    try:
        return convert(setting.name, setting.type, given.value)
    except SettingError as error:
        raise ConfigError(f"{error} (set by {given.source})") from None

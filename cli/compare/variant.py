"""Read what a user wants compared beside plain AD-PSGD: a label, and further options of `adpsgd-node up`."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, get_origin

from adpsgd_node.config import Setting, compose, settings
from adpsgd_node.daemon.settings import NodeConfig
from adpsgd_node.errors import ConfigError
from adpsgd_node.setting import SettingError

__all__ = ["Variant", "parse_variant"]

FORM = "LABEL: OPTIONS, such as 'local steps 4: --exchanges-per-step 0.25'"
MAX_LABEL_LENGTH = 40
LABEL = re.compile(rf"[A-Za-z0-9][A-Za-z0-9 ._+/=-]{{0,{MAX_LABEL_LENGTH - 1}}}")
"""It stands in tables, file names and plots."""

KEPT = frozenset(
    {"name", "run", "output", "algorithm", "world_size", "seed", "samples", "epochs", "listen", "advertise", "http"}
    | {"seeds", "slow", "emulate_step_ms", "slow_link", "emulate_link_mbps"}
)
"""Settings that the comparison itself gives its nodes: rows that differ in them could not be compared."""


@dataclass(frozen=True, slots=True)
class Variant:
    """AD-PSGD with some settings changed."""

    label: str
    given: tuple[tuple[str, str], ...]
    """Settings by name, as text."""

    @property
    def slug(self) -> str:
        """The label as a part of a folder's name."""
        return re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")

    @property
    def options(self) -> tuple[str, ...]:
        """What `adpsgd-node up` is given."""
        flags = {setting.name: setting for setting in settings(NodeConfig)}
        return tuple(_option(flags[name], value) for name, value in self.given)

    def check(self, others: Mapping[str, object]) -> None:
        """See that a node takes these settings with those that it is given besides. Raises `ConfigError`."""
        try:
            compose(NodeConfig, None, {**others, **dict(self.given)}, {})
        except ConfigError as error:
            raise ConfigError(f"variant {self.label!r}: {error}") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse_variant(text: str) -> Variant:
    """Read `LABEL: OPTIONS`. Raises `ConfigError` naming what is no label, or no option of `adpsgd-node up`."""
    label, colon, options = (part.strip() for part in text.partition(":"))
    if not colon or not LABEL.fullmatch(label):
        expected = f"{FORM}; the label of letters, digits and ' ._+/=-', at most {MAX_LABEL_LENGTH} of them"
        raise SettingError("variant", text, expected)
    try:
        words = shlex.split(options)
        if not words or "--" in words:
            raise ConfigError("no options" if not words else "'--' is none")
        given = _parser().parse_args(words)
    except (ConfigError, ValueError) as error:  # shlex: a quotation that does not end
        raise ConfigError(f"variant {label!r}: {error}; expected {FORM}, see adpsgd-node up --help") from None
    found = {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in vars(given).items()}
    if kept := KEPT.intersection(found):
        names = ", ".join(setting.flag for setting in settings(NodeConfig) if setting.name in kept)
        raise ConfigError(f"variant {label!r}: {names}: the same in all rows, so give it to compare itself or leave it")
    return Variant(label, tuple(found.items()))


def _parser() -> argparse.ArgumentParser:
    """Parse the settings of a node as `adpsgd-node up` does, without its script."""
    parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for setting in settings(NodeConfig):
        if setting.type is bool:
            parser.add_argument(setting.flag, dest=setting.name, action=argparse.BooleanOptionalAction)
        else:
            action = "append" if get_origin(setting.type) is tuple else "store"
            parser.add_argument(setting.flag, dest=setting.name, action=action)
    return parser


def _option(setting: Setting, value: str) -> str:
    if setting.type is bool:
        return setting.flag if value == "True" else f"--no-{setting.flag[2:]}"
    return f"{setting.flag}={value}"

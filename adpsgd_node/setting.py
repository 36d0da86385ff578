"""Turn the text or TOML value of one setting into its type, and say clearly what was wrong with it."""

from __future__ import annotations

import difflib
import enum
import math
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from adpsgd_node.errors import ConfigError

__all__ = ["SettingError", "choice", "convert", "shown"]

_TRUTHS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class SettingError(ConfigError):
    """A setting whose value cannot be used; `compose` adds where the value came from."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(f"{key} = {shown(value)}: expected {expected}")
        self.key = key


def choice(member: enum.Enum) -> str:
    """Write an enum member as users do: `AD_PSGD` is `ad-psgd`."""
    return member.name.lower().replace("_", "-")


def shown(value: object) -> str:
    """Write a value as an error message should quote it."""
    if isinstance(value, enum.Enum):
        return choice(value)
    return str(value) if isinstance(value, Path) else repr(value)


def convert(name: str, kind: Any, value: object) -> object:
    """Turn the value of setting `name` into `kind`: a plain type, an enum, a tuple of these, or one of these or None.

    Raises `SettingError` naming setting, value and what was expected.
    """
    try:
        return _convert(kind, value)
    except _UnfitError as error:
        raise SettingError(name, value, str(error)) from None


class _UnfitError(Exception):
    """A value is not of the wanted type; the text says what was expected."""


def _convert(kind: Any, value: object) -> object:
    kind = getattr(kind, "__supertype__", kind)  # a NewType stands for what it wraps
    if get_origin(kind) in (Union, types.UnionType):
        (inner,) = (member for member in get_args(kind) if member is not type(None))
        return None if value is None or value in ("", "none") else _convert(inner, value)
    if get_origin(kind) is tuple:
        return _convert_tuple(get_args(kind), value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _convert_enum(kind, value)
    return _PLAIN[kind](value)


def _convert_tuple(kinds: tuple[Any, ...], value: object) -> tuple[object, ...]:
    """Read `a,b,c` as a tuple of any length and `a:b` as one of fixed length; TOML writes both as arrays."""
    any_length = kinds[-1] is Ellipsis
    if isinstance(value, str):
        value = [part.strip() for part in value.split("," if any_length else ":")] if value.strip() else []
    if not isinstance(value, list | tuple):
        raise _UnfitError("a list")
    if any_length:
        return tuple(_convert(kinds[0], part) for part in value)
    if len(value) != len(kinds):
        raise _UnfitError(f"{len(kinds)} values joined by a colon in each entry")
    return tuple(_convert(kind, part) for kind, part in zip(kinds, value, strict=True))


def _convert_enum(kind: type[enum.Enum], value: object) -> enum.Enum:
    if isinstance(value, kind):
        return value
    by_text = {choice(member): member for member in kind}
    if isinstance(value, str) and value in by_text:
        return by_text[value]
    near = difflib.get_close_matches(value, by_text, 1) if isinstance(value, str) else []
    raise _UnfitError(f"one of {', '.join(by_text)}" + (f"; did you mean {near[0]}?" if near else ""))


def _to_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUTHS:
        return _TRUTHS[value.lower()]
    raise _UnfitError("true or false")


def _to_int(value: object) -> int:
    try:
        if isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass  # the answer below covers it
    raise _UnfitError("a whole number")


def _to_float(value: object) -> float:
    try:
        if (
            isinstance(value, int | float | str)
            and not isinstance(value, bool)
            and math.isfinite(number := float(value))
        ):
            return number
    except (ValueError, OverflowError):
        pass  # the answer below covers it
    raise _UnfitError("a finite number")


def _to_text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise _UnfitError("text")


def _to_path(value: object) -> Path:
    if isinstance(value, str | Path) and str(value):
        return Path(value)
    raise _UnfitError("a path")


_PLAIN: Mapping[Any, Callable[[object], object]] = {
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    str: _to_text,
    Path: _to_path,
}

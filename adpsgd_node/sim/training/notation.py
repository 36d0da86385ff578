"""Read the short notations in which users write conditions: `n3=10`, `n3@20`, `lognormal:0.3`."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from adpsgd_node.setting import SettingError

__all__ = ["Shape", "StepDistribution", "moments", "multiples", "step_distribution"]

MAX_SIGMA = 3.0
"""Widest lognormal distribution of step times: beyond it a mean says nothing."""

_NODE = re.compile(r"n?0*(\d{1,9})")


class Shape(enum.Enum):
    """How the times of steps vary."""

    CONSTANT = "constant"
    LOGNORMAL = "lognormal"
    TRACE = "trace"


@dataclass(frozen=True, slots=True)
class StepDistribution:
    """How the times of steps vary, as the user wrote it."""

    shape: Shape
    sigma: float = 0.0
    """Standard deviation of the logarithm of a lognormal time."""
    path: str = ""
    """File with a trace."""


def step_distribution(text: str) -> StepDistribution:
    """Read `constant`, `lognormal:SIGMA` or `trace:FILE`. Raises `SettingError`."""
    shape, _, argument = text.partition(":")
    if text == Shape.CONSTANT.value:
        return StepDistribution(Shape.CONSTANT)
    if shape == Shape.LOGNORMAL.value and 0 < (sigma := _number(argument)) <= MAX_SIGMA:
        return StepDistribution(Shape.LOGNORMAL, sigma=sigma)
    if shape == Shape.TRACE.value and argument:
        return StepDistribution(Shape.TRACE, path=argument)
    expected = f"constant, lognormal:SIGMA (above 0, at most {MAX_SIGMA:g}), or trace:FILE"
    raise SettingError("step_distribution", text, expected)


def multiples(name: str, texts: Iterable[str], nodes: int) -> dict[int, float]:
    """Read `NODE=FACTOR`s, each at least 1, by the node's number. Raises `SettingError` for setting `name`."""
    return _by_node(name, texts, nodes, "=", 1.0, "NODE=FACTOR, the factor 1 or more, such as n0=10")


def moments(name: str, texts: Iterable[str], nodes: int) -> dict[int, float]:
    """Read `NODE@SECONDS`s by the node's number. Raises `SettingError` for setting `name`."""
    return _by_node(name, texts, nodes, "@", 0.0, "NODE@SECONDS, such as n0@20")


def _by_node(
    name: str, texts: Iterable[str], nodes: int, separator: str, least: float, expected: str
) -> dict[int, float]:
    found: dict[int, float] = {}
    for text in texts:
        node, _, value = text.partition(separator)
        index, number = _NODE.fullmatch(node.strip()), _number(value)
        if index is None or not number >= least:
            raise SettingError(name, text, expected)
        if int(index[1]) >= nodes:
            raise SettingError(name, text, f"one of the nodes n0 to n{nodes - 1}")
        if int(index[1]) in found:
            raise SettingError(name, text, f"each node once: n{int(index[1])} stands there already")
        found[int(index[1])] = number
    return found


def _number(text: str) -> float:
    """Read a finite number; what is none becomes NaN, which no comparison holds for."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan

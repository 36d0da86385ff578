"""Hold what makes a node slower than its machine is: for experiments with unequal nodes, never for a run that counts.

Every node may be given the same entries; each takes those with its own name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adpsgd_node.ids import valid_name
from adpsgd_node.setting import SettingError

__all__ = ["HandicapConfig"]

MAX_ENTRIES = 4096
MAX_FACTOR = 10_000.0
MAX_STEP_MS = 3_600_000.0
MAX_LINK_MBPS = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HandicapConfig:
    """Experiments: slow computing or links down on purpose."""

    slow: tuple[str, ...] = ()
    """Stretch computing of these nodes, `NODE=FACTOR,...`: a step takes FACTOR times as long as it is measured to."""
    emulate_step_ms: float = 0.0
    """Computing of a step takes at least so many milliseconds, before it is stretched; 0: as long as it takes."""
    slow_link: tuple[str, ...] = ()
    """Lower the bandwidth of these nodes, both ways, `NODE=FACTOR,...`: the FACTORth part of what it is."""
    emulate_link_mbps: float = 0.0
    """Bandwidth of each node, each way, in megabits per second, before slow_link; 0: as fast as it is."""

    def __post_init__(self) -> None:
        _factors("slow", self.slow)
        _factors("slow_link", self.slow_link)
        for key, value, most in (
            ("emulate_step_ms", self.emulate_step_ms, MAX_STEP_MS),
            ("emulate_link_mbps", self.emulate_link_mbps, MAX_LINK_MBPS),
        ):
            if not 0 <= value <= most:
                raise SettingError(key, value, f"0 to {most:.0f}")

    def slow_factor(self, node: str) -> float:
        """Return what computing of `node` is stretched by; 1: not at all."""
        return _factors("slow", self.slow).get(node, 1.0)

    def link_factor(self, node: str) -> float:
        """Return what the bandwidth of `node` is divided by; 1: not at all."""
        return _factors("slow_link", self.slow_link).get(node, 1.0)

    @property
    def emulate_step_s(self) -> float:
        return self.emulate_step_ms / 1e3

    @property
    def link_bytes_per_s(self) -> float:
        """Bandwidth of every node, each way; 0: as fast as it is."""
        return self.emulate_link_mbps * 1e6 / 8


def _factors(key: str, entries: Sequence[str]) -> dict[str, float]:
    """Read `NODE=FACTOR` entries. Raises `SettingError` naming the setting `key` and the entry."""
    if len(entries) > MAX_ENTRIES:
        raise SettingError(key, f"{len(entries)} entries", f"at most {MAX_ENTRIES}")
    factors: dict[str, float] = {}
    for entry in entries:
        node, _, text = entry.partition("=")
        factor = _number(text)
        if not valid_name(node) or not 1 <= factor <= MAX_FACTOR:
            raise SettingError(key, entry, f"NODE=FACTOR with a node's name and a factor of 1 to {MAX_FACTOR:.0f}")
        if node in factors:
            raise SettingError(key, entry, f"one entry for each node, as {node} has another")
        factors[node] = factor
    return factors


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

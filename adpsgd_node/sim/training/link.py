"""Say what lies between any two nodes: latency, and bandwidth up, down and on the way."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adpsgd_node.errors import ConfigError
from adpsgd_node.sim.training.scenario import NetworkName, TrainingScenario

__all__ = ["LinkTable", "link_table", "read_links"]

PRESETS: dict[NetworkName, tuple[float, float]] = {
    NetworkName.RACK: (0.05, 25_000.0),
    NetworkName.ZONE: (0.25, 10_000.0),
    NetworkName.REGION: (1.0, 5_000.0),
    NetworkName.INTERNET: (40.0, 100.0),
}
"""Latency one way in ms, and bandwidth in Mbit/s."""

BYTES_PER_MBIT = 1e6 / 8
MAX_FILE_BYTES = 512 << 20
KEYS = ("latency_ms", "bandwidth_mbps")


@dataclass(frozen=True, slots=True)
class LinkTable:
    """The links of all nodes. What goes from i to j takes the slowest of: up from i, the path, down to j."""

    latency_s: float
    """Seconds one way where the matrix says nothing."""
    rate: npt.NDArray[np.float64]
    """Bytes per second of each node, up as well as down, [nodes]."""
    latency_matrix_s: npt.NDArray[np.float64] | None = None
    """Seconds from each node (row) to each (column), [nodes, nodes]."""
    rate_matrix: npt.NDArray[np.float64] | None = None
    """Bytes per second of the paths between them, infinite where the nodes' own links alone count, [nodes, nodes]."""

    def latency_of(self, source: int, target: int) -> float:
        """Return the seconds that a byte takes from `source` to `target`."""
        if source == target:
            return 0.0
        return self.latency_s if self.latency_matrix_s is None else float(self.latency_matrix_s[source, target])

    def rate_up(self, source: int, target: int) -> float:
        """Return the bytes per second at which `source` sends to `target` on a free link."""
        rate = float(self.rate[source])
        return rate if self.rate_matrix is None else min(rate, float(self.rate_matrix[source, target]))


def link_table(scenario: TrainingScenario) -> LinkTable:
    """Lay the links of a scenario. Raises `ConfigError` when the file with the matrix cannot be used."""
    config = scenario.network
    latency_ms, bandwidth_mbps = PRESETS[config.network]
    if config.latency_ms is not None:
        latency_ms = config.latency_ms
    if config.bandwidth_mbps is not None:
        bandwidth_mbps = config.bandwidth_mbps
    rate = np.full(scenario.nodes, bandwidth_mbps * BYTES_PER_MBIT)
    for node, factor in scenario.link_slowdowns.items():
        rate[node] /= factor
    if config.links is None:
        return LinkTable(latency_ms / 1e3, rate)
    latency_matrix_ms, bandwidth_matrix_mbps = read_links(config.links, scenario.nodes)
    return LinkTable(
        latency_ms / 1e3,
        rate,
        np.where(np.isnan(latency_matrix_ms), latency_ms, latency_matrix_ms) / 1e3,
        np.where(np.isnan(bandwidth_matrix_mbps), math.inf, bandwidth_matrix_mbps) * BYTES_PER_MBIT,
    )


def read_links(path: Path, nodes: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Read the matrices of latency in ms and bandwidth in Mbit/s, NaN where the file says nothing.

    Raises `ConfigError` naming the file, the entry and what was expected.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes: is it a file of links?")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the links in {path} ({error.strerror}): name a JSON file.") from None
    except ValueError:
        raise ConfigError(f"{path} is no JSON: write an object with {' and '.join(KEYS)}.") from None
    if not isinstance(content, dict) or not content or not set(content) <= set(KEYS):
        raise ConfigError(f"{path} has other keys than links have: write an object with {' and '.join(KEYS)}.")
    latency = _matrix(path, KEYS[0], content.get(KEYS[0]), nodes, 0.0)
    return latency, _matrix(path, KEYS[1], content.get(KEYS[1]), nodes, math.ulp(0.0))


def _matrix(path: Path, key: str, rows: Any, nodes: int, least: float) -> npt.NDArray[np.float64]:
    if rows is None:
        return np.full((nodes, nodes), math.nan)
    shape = f"{nodes} lists of {nodes} numbers each, one list a node"
    if not isinstance(rows, list) or len(rows) != nodes:
        raise ConfigError(f"{key} in {path} does not fit {nodes} nodes: write {shape}.")
    for source, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != nodes:
            raise ConfigError(f"row {source} of {key} in {path} does not fit {nodes} nodes: write {shape}.")
        for target, value in enumerate(row):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and least <= value < math.inf):
                wanted = "a number above 0" if least else "0 or more"
                raise ConfigError(f"{key}[{source}][{target}] in {path} is {value!r}: write {wanted}, or null.")
    return np.array([[math.nan if value is None else value for value in row] for row in rows], dtype=np.float64)

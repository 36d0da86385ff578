"""Draw how long each step of each node takes; a node's times are the same under every algorithm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adpsgd_node.errors import ConfigError
from adpsgd_node.sim.training.notation import Shape, StepDistribution
from adpsgd_node.sim.training.scenario import TrainingScenario

__all__ = ["StepTimes", "read_trace"]

BLOCK = 64
"""Times drawn at once for a node."""
MAX_TRACE_BYTES = 64 << 20
TRACE_FORM = "a JSON list of seconds, or one number a line"


class StepTimes:
    """The seconds of the steps of all nodes, each node's from a random stream of its own."""

    def __init__(self, scenario: TrainingScenario) -> None:
        slowdowns = scenario.slowdowns
        self._distribution: StepDistribution = scenario.compute.distribution
        self._trace = np.empty(0)
        mean_s = scenario.compute.step_ms / 1e3
        if self._distribution.shape is Shape.TRACE:
            self._trace = read_trace(Path(self._distribution.path))
            mean_s = float(self._trace.mean())
        self.mean_s: list[float] = [mean_s * slowdowns.get(node, 1.0) for node in range(scenario.nodes)]
        """Mean seconds of a step of each node."""
        self._random = [np.random.default_rng([scenario.seed, 1, node]) for node in range(scenario.nodes)]
        self._waiting: list[list[float]] = [[] for _ in range(scenario.nodes)]
        self._factors = [slowdowns.get(node, 1.0) for node in range(scenario.nodes)]

    def next_s(self, node: int) -> float:
        """Return how long the next step of `node` takes."""
        if self._distribution.shape is Shape.CONSTANT:
            return self.mean_s[node]
        waiting = self._waiting[node]
        if not waiting:
            waiting += self._drawn(node)
        return waiting.pop()

    def next_of(self, nodes: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return how long the next step of each of `nodes` takes."""
        return np.array([self.next_s(node) for node in nodes])

    @property
    def ideal_rate(self) -> float:
        """Steps a second of all nodes together when none ever waits."""
        return sum(1.0 / mean_s for mean_s in self.mean_s)

    def _drawn(self, node: int) -> list[float]:
        """Draw a block, latest first."""
        rng = self._random[node]
        if self._distribution.shape is Shape.TRACE:
            times = self._factors[node] * rng.choice(self._trace, BLOCK)
        else:
            sigma = self._distribution.sigma
            times = self.mean_s[node] * np.exp(sigma * rng.standard_normal(BLOCK) - sigma * sigma / 2)
        drawn: list[float] = times[::-1].tolist()
        return drawn


def read_trace(path: Path) -> npt.NDArray[np.float64]:
    """Read measured seconds of steps. Raises `ConfigError` naming the file, the line and the form expected."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_TRACE_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the trace {path} ({error}): give {TRACE_FORM}.") from None
    if len(text) > MAX_TRACE_BYTES:
        raise ConfigError(f"the trace {path} is larger than {MAX_TRACE_BYTES} bytes: give {TRACE_FORM}.")
    times = _parsed(path, text)
    if not times:
        raise ConfigError(f"the trace {path} is empty: give {TRACE_FORM}.")
    for place, time in enumerate(times, 1):
        if isinstance(time, bool) or not isinstance(time, int | float) or not 0 < time < float("inf"):
            raise ConfigError(f"value {place} of the trace {path} is {time!r}: give {TRACE_FORM}, each above 0.")
    return np.array(times, dtype=np.float64)


def _parsed(path: Path, text: str) -> list[object]:
    if text.lstrip().startswith("["):
        texts = {1: text}
    else:
        texts = {number: line for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    found: list[object] = []
    for number, part in texts.items():
        try:
            value = json.loads(part)
        except ValueError:
            raise ConfigError(f"line {number} of the trace {path} is no JSON: give {TRACE_FORM}.") from None
        found += value if isinstance(value, list) else [value]
    return found

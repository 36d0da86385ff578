"""Vary a scenario: other numbers of nodes, topologies, stragglers or algorithms, in every combination."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from adpsgd_node.errors import ConfigError
from adpsgd_node.setting import convert
from adpsgd_node.sim.training.scenario import Algorithm, TrainingScenario

__all__ = ["MAX_RUNS", "SWEPT", "Sweep", "read_sweep", "variations"]

SWEPT = ("nodes", "algorithm", "topology", "straggler")
"""What can be swept, in the order in which a combination is laid over the scenario."""
MAX_RUNS = 1000
"""Most simulations of one sweep."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One thing to vary, and its values in the order given."""

    name: str
    values: tuple[str, ...]


def read_sweep(text: str) -> Sweep:
    """Read `nodes=8,16`. Raises `ConfigError` naming what can be swept."""
    name, _, listed = text.partition("=")
    values = tuple(value.strip() for value in listed.split(",") if value.strip())
    if name not in SWEPT or not values:
        raise ConfigError(f"--sweep {text!r}: write NAME=VALUE,VALUE,... with NAME one of {', '.join(SWEPT)}.")
    if len(set(values)) < len(values):
        raise ConfigError(f"--sweep {text!r} names a value twice: write each once.")
    return Sweep(name, values)


def variations(scenario: TrainingScenario, sweeps: Sequence[Sweep]) -> Iterator[TrainingScenario]:
    """Yield the scenario in every combination of the values swept; the last sweep varies fastest."""
    names = [sweep.name for sweep in sweeps]
    if len(set(names)) < len(names):
        raise ConfigError(f"--sweep is given twice for one of {', '.join(names)}: list all its values in one.")
    if (runs := math.prod(len(sweep.values) for sweep in sweeps)) > MAX_RUNS:
        raise ConfigError(f"the sweeps make {runs} simulations, more than {MAX_RUNS}: leave some values out.")
    for values in itertools.product(*(sweep.values for sweep in sweeps)):
        chosen = dict(zip(names, values, strict=True))
        varied = scenario
        for name in SWEPT:
            if name in chosen:
                varied = _varied(varied, name, chosen[name])
        yield varied


def _varied(scenario: TrainingScenario, name: str, value: str) -> TrainingScenario:
    match name:
        case "nodes":
            nodes = convert("nodes", int, value)
            assert isinstance(nodes, int)
            return replace(scenario, nodes=nodes)
        case "algorithm":
            algorithm = convert("algorithm", Algorithm, value)
            assert isinstance(algorithm, Algorithm)
            return replace(scenario, algorithm=algorithm)
        case "topology":
            return replace(scenario, topology=value)
        case _:  # the last node is the straggler: the first may be a parameter server
            slow = (*scenario.compute.slow, f"n{scenario.nodes - 1}={value}")
            return replace(scenario, compute=replace(scenario.compute, slow=slow))

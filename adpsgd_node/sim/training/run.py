"""Simulate a training, by the algorithm that its scenario names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from adpsgd_node.sim.training.a_psgd import APsgdTraining
from adpsgd_node.sim.training.ad_psgd import AdPsgdTraining
from adpsgd_node.sim.training.allreduce import AllReduceTraining
from adpsgd_node.sim.training.contract import Training
from adpsgd_node.sim.training.d_psgd import DPsgdTraining
from adpsgd_node.sim.training.record import Point
from adpsgd_node.sim.training.report import TrainingReport, reported
from adpsgd_node.sim.training.scenario import Algorithm, TrainingScenario

__all__ = ["TrainingRun", "completed", "simulated", "training_of"]

_TRAININGS: Mapping[Algorithm, type[Training]] = MappingProxyType(
    {
        Algorithm.AD_PSGD: AdPsgdTraining,
        Algorithm.D_PSGD: DPsgdTraining,
        Algorithm.A_PSGD: APsgdTraining,
        Algorithm.ALLREDUCE: AllReduceTraining,
    }
)


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One simulation: its figures, and how it came to them."""

    scenario: TrainingScenario
    report: TrainingReport
    points: tuple[Point, ...]


def training_of(scenario: TrainingScenario) -> Training:
    """Set a training up. Raises `ConfigError` when a file that the scenario names cannot be used."""
    return _TRAININGS[scenario.algorithm](scenario)


def simulated(scenario: TrainingScenario) -> TrainingRun:
    """Carry a scenario out; the same scenario always comes to the same."""
    training = training_of(scenario)
    report = completed(training)
    return TrainingRun(scenario, report, tuple(training.record.points))


def completed(training: Training) -> TrainingReport:
    """Carry a training out that was set up, and sum it up."""
    with np.errstate(over="ignore", invalid="ignore"):  # it may diverge: the report says so
        training.run()
        return reported(training)

"""The contract of the simulated algorithms, and what all of them are given."""

from __future__ import annotations

from abc import ABC, abstractmethod

from adpsgd_node.sim.training.compute import StepTimes
from adpsgd_node.sim.training.link import link_table
from adpsgd_node.sim.training.objective import Objective
from adpsgd_node.sim.training.record import Record
from adpsgd_node.sim.training.scenario import TrainingScenario

__all__ = ["Training"]


class Training(ABC):
    """The training of one fleet. `run` carries it out in virtual time, and leaves the account in `record`."""

    def __init__(self, scenario: TrainingScenario) -> None:
        self.scenario = scenario
        self.names = scenario.names
        self.times = StepTimes(scenario)
        self.links = link_table(scenario)
        self.objective = Objective(scenario)
        self.record = Record(scenario, self.objective)

    @property
    def staleness_mean(self) -> float | None:
        """Return how stale gradients were on average; None where that cannot be said."""
        return None

    @abstractmethod
    def run(self) -> None:
        """Train until all steps are made, or nobody can go on."""

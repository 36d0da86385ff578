"""Measure membership: let many join, crash some, count who was wrongly held dead and how long the truth took."""

from __future__ import annotations

import random
from dataclasses import dataclass

from adpsgd_node.core.membership import MembershipConfig, membership_preset
from adpsgd_node.errors import ConfigError
from adpsgd_node.sim.membership import MembershipSimulation
from adpsgd_node.sim.network import Link
from adpsgd_node.sim.report import MembershipReport

__all__ = ["MembershipScenario"]

SEEDS = 3
"""Members whose addresses the others are given, as in a real deployment."""

START_GAP_S = 0.02
"""Mean time between two starts, in seconds: 1,000 members start within 20 s."""

JOIN_LIMIT_S = 300.0
"""Simulated seconds after which the measurement begins though not all know each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipScenario:
    """What is to be simulated."""

    members: int = 100
    """Members that start."""
    loss: float = 0.05
    """Probability that a message is lost, each way of each link."""
    seconds: float = 600.0
    """Simulated seconds measured, from the moment when all know each other."""
    preset: str = "lan"
    """Times of membership: local, lan or wan."""
    seed: int = 0
    """Seed of everything random."""
    crash: int = 1
    """Members that crash together half way through; never a seed."""

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ConfigError(f"{self.members} members are no cluster: give at least 2.")
        if self.members > self.config().max_members:
            raise ConfigError(f"{self.members} members are more than a run can have: {self.config().max_members}.")
        if not 0 <= self.crash <= max(0, self.members - SEEDS):
            raise ConfigError(f"crash is {self.crash}: at most the {max(0, self.members - SEEDS)} that are no seeds.")
        if not self.seconds > 0:
            raise ConfigError(f"{self.seconds} s cannot be measured: give a time above 0.")
        Link(loss=self.loss)

    def config(self) -> MembershipConfig:
        """Return the settings of the preset."""
        return membership_preset(self.preset)

    def run(self) -> MembershipReport:
        """Simulate, and return the figures."""
        simulation = MembershipSimulation(self.seed, self.config(), Link(loss=self.loss))
        rng = random.Random(f"{self.seed} scenario")
        joined_s = self._form(simulation, rng)
        sent_before = simulation.network.sent
        wronged_before = len(simulation.observer.wronged)
        simulation.clock.run(self.seconds / 2)
        crashed = rng.sample(simulation.running()[SEEDS:], self.crash)
        for life in crashed:
            simulation.crash(life)
        simulation.clock.run(self.seconds / 2)
        sent = simulation.network.sent - sent_before
        detections = simulation.observer.detections_s()
        known = [seconds for seconds in detections if seconds is not None]
        return MembershipReport(
            members=self.members,
            preset=self.preset,
            loss=self.loss,
            seed=self.seed,
            simulated_s=self.seconds,
            crashed=self.crash,
            false_deaths=len(simulation.observer.wronged),
            false_deaths_joining=wronged_before,
            detection_s_max=max(known) if known and len(known) == len(detections) else None,
            undetected=len(detections) - len(known),
            joined_s=joined_s,
            messages_per_node_s=sent / self.seconds / (self.members - self.crash / 2),
            converged=simulation.converged(),
            events=simulation.clock.events,
        )

    def _form(self, simulation: MembershipSimulation, rng: random.Random) -> float | None:
        width = len(str(self.members - 1))
        names = [f"n{index:0{width}d}" for index in range(self.members)]
        seeds = names[:SEEDS]
        spread_s = START_GAP_S * self.members
        for name in names:
            # The seeds first, as whoever starts the others needs to know where they are.
            simulation.clock.at(0.0 if name in seeds else rng.uniform(0.0, spread_s), simulation.start, name, seeds)
        simulation.clock.run(spread_s)
        waited_s = simulation.run_until_converged(JOIN_LIMIT_S)
        return None if waited_s is None else spread_s + waited_s

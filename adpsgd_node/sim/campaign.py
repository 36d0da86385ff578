"""Put a cluster through faults again and again, each time with another seed, and sum up what came of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from adpsgd_node.errors import ConfigError
from adpsgd_node.sim.fault_scenario import FaultRun, FaultScenario

__all__ = ["MAX_FAILURES", "Campaign", "CampaignReport"]

MAX_FAILURES = 100
"""Most failing seeds that a report lists; it counts them all."""

MAX_SEEDS = 1_000_000


@dataclass(slots=True, kw_only=True)
class CampaignReport:
    """The figures of all seeds together."""

    nodes: int
    first_seed: int
    seeds: int = 0
    failed: int = 0
    """Seeds that break an invariant."""
    failures: list[int] = field(default_factory=list)
    """These seeds, the first ones if there are many."""
    converge_s_max: float | None = None
    """From the mending of the last fault until all views were right, in simulated seconds: the longest, where ever."""
    converge_s_median: float | None = None
    unconverged: int = 0
    """Seeds whose views were never right."""
    exchanges: int = 0
    broken: int = 0
    settled: int = 0
    mass_drift: int = 0
    stuck: int = 0
    faults: int = 0
    events: int = 0

    def lines(self) -> list[str]:
        """Write the figures for people."""
        times = (
            "never"
            if self.converge_s_max is None
            else f"{self.converge_s_median:g} s median, {self.converge_s_max:g} s"
        )
        return [
            f"{self.seeds} seeds from {self.first_seed} on, {self.nodes} nodes: {self.faults} faults",
            f"exchanges:             {self.exchanges} complete, {self.broken} broken, {self.settled} settled",
            f"views right after:     {times} at most; not at all: {self.unconverged}",
            f"mass drift:            {self.mass_drift}",
            f"stuck exchanges:       {self.stuck}",
            f"failing seeds:         {self.failed}" + "".join(f"\n  {seed}" for seed in self.failures),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Which seeds are to be simulated."""

    scenario: FaultScenario = field(default_factory=FaultScenario)
    first_seed: int = 0
    seeds: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= MAX_SEEDS:
            raise ConfigError(f"{self.seeds} seeds cannot be simulated: give 1 to {MAX_SEEDS}.")

    def runs(self) -> Iterator[FaultRun]:
        """Simulate one seed after another."""
        for seed in range(self.first_seed, self.first_seed + self.seeds):
            yield replace(self.scenario, seed=seed).run()

    def report(self, ran: Callable[[FaultRun], None]) -> CampaignReport:
        """Simulate all seeds; `ran` is told of each."""
        report = CampaignReport(nodes=self.scenario.nodes, first_seed=self.first_seed)
        times: list[float] = []
        for run in self.runs():
            ran(run)
            report.seeds += 1
            report.exchanges += run.exchanges
            report.broken += run.broken
            report.settled += run.settled
            report.mass_drift += run.mass_drift
            report.stuck += run.stuck
            report.faults += len(run.faults)
            report.events += run.events
            if run.converge_s is None:
                report.unconverged += 1
            else:
                times.append(run.converge_s)
            if run.wrong:
                report.failed += 1
                report.failures += [run.seed] * (len(report.failures) < MAX_FAILURES)
        if times:
            report.converge_s_max, report.converge_s_median = max(times), statistics.median(times)
        return report

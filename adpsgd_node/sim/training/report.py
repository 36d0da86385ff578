"""Say what a simulation of training found."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adpsgd_node.setting import choice
from adpsgd_node.sim.training.contract import Training
from adpsgd_node.sim.training.record import consensus_distance

__all__ = ["TrainingReport", "reported"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """The figures of one simulation; None: not measured, or not finite, as when training diverges."""

    algorithm: str
    nodes: int
    topology: str
    straggler: float
    """How many times as long as usual the steps of the slowest node take."""
    seed: int
    steps_total: int
    """Steps of all nodes together."""
    samples_total: int
    duration_s: float
    """Simulated seconds from the start to the end."""
    samples_per_s: float
    ideal_fraction: float
    """Of the throughput of nodes that never wait."""
    speedup: float
    """Throughput over that of one node alone that is not slow."""
    time_to_target_s: float | None
    samples_to_target: int | None
    """When the loss of the mean of all models was first measured to be at the target."""
    final_loss: float | None
    """Of the mean of all models: 1 at the start, 0 at the optimum."""
    consensus_distance: float | None
    """Root mean square distance of the models from their mean, relative to its norm."""
    bytes_per_node: float
    """Bytes of parameters and gradients that arrived, over the number of nodes."""
    exchanges: int
    """Complete exchanges, mixings of one node, pushes with their pull, or all-reduces."""
    declined: int
    broken: int
    staleness_mean: float | None
    """Updates of others between the pull that a gradient was taken at and its push; a-psgd only."""
    stopped: str
    """Why training ended before its time; empty: it did not."""

    def lines(self) -> list[str]:
        """Write the figures for people."""
        target = "not reached"
        if self.time_to_target_s is not None:
            target = f"after {_short(self.time_to_target_s)} s, {self.samples_to_target} samples"
        graph = f", {self.topology}" if self.algorithm in ("ad-psgd", "d-psgd") else ""
        rows = [
            f"{self.nodes} nodes, {self.algorithm}{graph}, seed {self.seed}",
            f"throughput:            {_short(self.samples_per_s)} samples/s, "
            f"{100 * self.ideal_fraction:.1f} % of the ideal, {_short(self.speedup)} times one node",
            f"simulated:             {_short(self.duration_s)} s, {self.steps_total} steps",
            f"target loss:           {target}",
            f"final loss:            {_short(self.final_loss)}",
            f"consensus distance:    {_short(self.consensus_distance)}",
            f"bytes per node:        {_short(self.bytes_per_node)}",
            f"exchanges:             {self.exchanges}, {self.declined} declined, {self.broken} broken",
        ]
        if self.staleness_mean is not None:
            rows.append(f"staleness:             {_short(self.staleness_mean)} updates")
        if self.stopped:
            rows.append(f"stopped:               {self.stopped}")
        return rows


def reported(training: Training) -> TrainingReport:
    """Sum up a training that has run."""
    scenario, record, times = training.scenario, training.record, training.times
    duration_s = record.ended_s
    assert duration_s is not None, "the training has not run"
    steps_per_s = record.steps / duration_s if duration_s > 0 else 0.0
    slowdowns = scenario.slowdowns
    usual_s = times.mean_s[0] / slowdowns.get(0, 1.0)
    reached = record.reached
    last = record.points[-1] if record.points and len(record.final) else None
    return TrainingReport(
        algorithm=choice(scenario.algorithm),
        nodes=scenario.nodes,
        topology=scenario.topology,
        straggler=max(slowdowns.values(), default=1.0),
        seed=scenario.seed,
        steps_total=record.steps,
        samples_total=record.steps * scenario.batch,
        duration_s=duration_s,
        samples_per_s=steps_per_s * scenario.batch,
        ideal_fraction=steps_per_s / times.ideal_rate,
        speedup=steps_per_s * usual_s,
        time_to_target_s=reached.time_s if reached else None,
        samples_to_target=reached.samples if reached else None,
        final_loss=_finite(last.loss) if last else None,
        consensus_distance=_finite(consensus_distance(record.final)) if last else None,
        bytes_per_node=record.bytes_sent / scenario.nodes,
        exchanges=record.exchanges,
        declined=record.declined,
        broken=record.broken,
        staleness_mean=training.staleness_mean,
        stopped=record.stopped,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"

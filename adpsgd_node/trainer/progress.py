"""What a script may ask about the whole run, and what it is told at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adpsgd_node.plane import Command, Header

__all__ = ["Progress", "Result", "read_progress", "told_to_stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the run is, over all its nodes, as this node knows it (seconds old at most)."""

    steps: int
    samples: int
    target_samples: int
    """Samples after which the run stops; 0: no target was set."""
    epoch: float | None
    """`samples / dataset_size`; None when `join` was not given `dataset_size`."""
    fraction: float
    """`samples / target_samples`, at most 1: what a learning-rate schedule reads. 0 without a target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the run ended."""

    path: Path | None
    """The model file; None when no output folder was set."""
    consensus_distance: float
    """Relative distance between the nodes' models when they agreed."""
    steps_total: int
    samples_total: int
    members: int
    """Nodes that agreed, this one included."""


def read_progress(header: Header, dataset_size: int | None, totals: tuple[int, int] | None = None) -> Progress:
    """Read the run's counters; before the daemon's first news they are this node's own.

    totals: the run's steps and samples, where they are known better.
    """
    heard = max(header.global_steps, header.step), max(header.global_samples, header.samples)
    (steps, samples), target = totals or heard, header.target_samples
    return Progress(
        steps=steps,
        samples=samples,
        target_samples=target,
        epoch=samples / dataset_size if dataset_size else None,
        fraction=min(1.0, samples / target) if target else 0.0,
    )


def told_to_stop(header: Header) -> bool:
    """Tell whether the daemon asked for a stop or the run has reached its target."""
    target = header.target_samples
    return header.command is Command.STOP or bool(target and header.global_samples >= target)

"""Judge a demo: compare the models that the survivors wrote, and sum the run up."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adpsgd_cli.demo.cluster import Cluster
from adpsgd_cli.demo.history import History
from adpsgd_cli.demo.plan import DemoPlan
from adpsgd_cli.status_view import number
from adpsgd_node.checkpoint.model_file import read_metadata, read_tensors
from adpsgd_node.errors import AdpsgdError
from adpsgd_node.setting import choice

__all__ = ["read_result", "relative_distance", "summarize", "told", "widest_distance"]

Model = Mapping[str, NDArray[np.float32]]


def widest_distance(models: Sequence[Path]) -> float:
    """Return the largest relative distance between any two model files; 0 for a single one.

    Raises `AdpsgdError` when one cannot be read or holds other tensors than the rest.
    """
    tensors = [read_tensors(path) for path in models]
    for path, model in zip(models[1:], tensors[1:], strict=True):
        if {name: value.shape for name, value in model.items()} != {
            name: value.shape for name, value in tensors[0].items()
        }:
            raise AdpsgdError(f"{path} holds other tensors than {models[0]}")
    return max((relative_distance(one, other) for one, other in itertools.combinations(tensors, 2)), default=0.0)


def relative_distance(one: Model, other: Model) -> float:
    """Return |one - other| / min(|one|, |other|) over all tensors, summed in float64."""
    apart = ones = others = 0.0
    for name, value in one.items():
        a, b = value.astype(np.float64), other[name].astype(np.float64)
        apart += float(np.sum((a - b) ** 2))
        ones += float(np.sum(a**2))
        others += float(np.sum(b**2))
    norm = math.sqrt(min(ones, others))
    return math.sqrt(apart) / norm if norm else (0.0 if not apart else math.inf)


def read_result(path: Path) -> dict[str, float]:
    """Read what the task measured on its held-out data; empty when it wrote nothing. Raises `AdpsgdError`."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise AdpsgdError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise AdpsgdError(f"{path} is no JSON object")
    return {key: float(value) for key, value in content.items() if isinstance(value, int | float)}


def summarize(plan: DemoPlan, cluster: Cluster, history: History, wall_s: float) -> dict[str, object]:
    """Put the result together from what the nodes said and the survivors wrote. Raises `AdpsgdError`."""
    survivors = cluster.survivors
    written = [read_metadata(node.model) for node in survivors]
    results = [read_result(node.result) for node in survivors]
    accuracies = [result["test_accuracy"] for result in results if "test_accuracy" in result]
    losses = [result["test_loss"] for result in results if "test_loss" in result]
    return {
        "nodes": plan.nodes,
        "survivors": len(survivors),
        # The last status was asked before the end; the models know how far the run had come by then.
        "samples_total": max([history.samples_total, *(int(model.get("samples", 0)) for model in written)]),
        "steps_total": max([history.steps_total, *(int(model.get("steps", 0)) for model in written)]),
        "exchanges_total": history.exchanges_total,
        # Of several equal models the worst figure is told.
        "test_accuracy": min(accuracies, default=None),
        "test_loss": max(losses, default=None),
        "consensus_distance": widest_distance([node.model for node in survivors]),
        "tolerance": plan.tolerance,
        "wall_s": round(wall_s, 3),
        "model": str(survivors[0].model),
        "task": str(plan.task),
        "topology": choice(plan.topology),
        "codec": choice(plan.codec),
        "killed": plan.victim,
    }


def told(result: dict[str, object]) -> str:
    """Tell the result in words."""
    accuracy = result["test_accuracy"]
    judged = f"test accuracy {accuracy:.4f} of the averaged model; " if isinstance(accuracy, float) else ""
    distance = result["consensus_distance"]
    assert isinstance(distance, float)
    return "\n".join(
        (
            f"{result['survivors']} of {result['nodes']} nodes finished in {result['wall_s']} s: "
            f"{result['samples_total']} samples, {result['steps_total']} steps, {result['exchanges_total']} exchanges",
            f"{judged}the models differ by {number(distance, 3)} at most (tolerance {result['tolerance']})",
            f"model: {result['model']}",
            f"plot:  {result['plot']}",
        )
    )

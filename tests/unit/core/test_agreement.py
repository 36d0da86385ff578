from __future__ import annotations

import numpy as np
import pytest

from adpsgd_node.core.agreement import Agreement


def test_neighbor_never_met_is_far() -> None:
    assert Agreement(1e-3).far(["a"], 1) == ["a"]


def test_neighbor_met_within_half_the_tolerance_is_close() -> None:
    agreement = Agreement(1e-3)
    agreement.exchanged("a", 4e-4, complete=True)
    assert agreement.far(["a"], 1) == []
    assert agreement.far(["a"], 2) == ["a"], "on a longer graph neighbors must be closer"


def test_own_move_towards_another_makes_an_old_measurement_stale() -> None:
    agreement = Agreement(1e-3)
    agreement.exchanged("a", 1e-5, complete=True)
    agreement.exchanged("b", 0.1, complete=True)
    assert agreement.far(["a", "b"], 1) == ["a", "b"]
    assert agreement.bound("a") == pytest.approx(1e-5 + 0.05)


def test_exchange_that_was_cut_short_measures_nothing() -> None:
    agreement = Agreement(1e-3)
    agreement.exchanged("a", 1e-5, complete=True)
    agreement.exchanged("a", 1e-5, complete=False)
    assert agreement.far(["a"], 1) == ["a"]


def test_infinite_or_undefined_distance_is_far() -> None:
    agreement = Agreement(1e-3)
    agreement.exchanged("a", float("nan"), complete=True)
    assert agreement.far(["a"], 1) == ["a"]


@pytest.mark.parametrize("seed", range(20))
def test_when_every_node_finds_its_edges_close_any_two_models_are_within_the_tolerance(seed: int) -> None:
    """Random exchanges on a ring of 6 (diameter 3), each judged by its two nodes alone."""
    rng = np.random.default_rng(seed)
    count, tolerance = 6, 1e-2
    models = 10.0 + rng.standard_normal((count, 50))
    nodes = [Agreement(tolerance) for _ in range(count)]
    neighbors = {i: [str((i - 1) % count), str((i + 1) % count)] for i in range(count)}
    for _ in range(10_000):
        i = int(rng.integers(count))
        j = int(rng.choice([(i - 1) % count, (i + 1) % count]))
        distance = float(np.linalg.norm(models[i] - models[j]))
        nodes[i].exchanged(str(j), distance / float(np.linalg.norm(models[i])), complete=True)
        nodes[j].exchanged(str(i), distance / float(np.linalg.norm(models[j])), complete=True)
        models[i] = models[j] = (models[i] + models[j]) / 2
        if all(not nodes[k].far(neighbors[k], 3) for k in range(count)):
            break
    else:
        pytest.fail("the nodes never agreed")
    widest = max(np.linalg.norm(a - b) / np.linalg.norm(a) for a in models for b in models)
    assert widest <= tolerance

"""The objective of simulated training: its scale, its noise, its skew."""

from __future__ import annotations

import numpy as np
import pytest

from adpsgd_node.sim.training.objective import Objective
from adpsgd_node.sim.training.record import consensus_distance
from adpsgd_node.sim.training.scenario import ObjectiveConfig, TrainingScenario


def objective_of(nodes: int = 8, **given: float) -> Objective:
    return Objective(TrainingScenario(nodes=nodes, objective=ObjectiveConfig(**given)))  # type: ignore[arg-type]


def test_the_loss_is_one_at_the_start_and_zero_at_the_optimum() -> None:
    objective = objective_of(condition=30.0)

    assert objective.loss(objective.start) == pytest.approx(1.0)
    assert objective.loss(objective.optimum) == 0.0
    assert objective.curvature.max() / objective.curvature.min() == pytest.approx(30.0)
    assert objective.curvature.max() == 1.0


def test_a_gradient_without_noise_is_the_slope_of_the_loss() -> None:
    objective = objective_of(noise=0.0, dimension=6)
    at = np.linspace(-1.0, 1.0, 6)

    gradient = objective.gradient(3, at)

    for axis in range(6):
        step = np.zeros(6)
        step[axis] = 1e-6
        slope = (objective.loss(at + step) - objective.loss(at - step)) / 2e-6
        assert gradient[axis] == pytest.approx(slope, rel=1e-6)


def test_noise_has_the_size_asked_for_and_no_bias() -> None:
    objective = objective_of(noise=0.5)
    exact = objective.curvature * (objective.start - objective.optimum)

    noise = np.array([objective.gradient(1, objective.start) for _ in range(3000)]) - exact

    size = np.sqrt(np.mean(np.sum(noise**2, axis=1)))
    assert size == pytest.approx(0.5 * np.linalg.norm(exact), rel=0.02)
    assert np.linalg.norm(noise.mean(axis=0)) < 0.05 * size


def test_skew_moves_each_nodes_optimum_and_leaves_that_of_all() -> None:
    even, skewed = objective_of(), objective_of(skew=0.7)

    assert np.array_equal(even.own_optimum, np.tile(even.optimum, (8, 1)))
    np.testing.assert_allclose(skewed.own_optimum.mean(axis=0), skewed.optimum, atol=1e-12)
    ways = np.linalg.norm(skewed.own_optimum - skewed.optimum, axis=1)
    assert ways.mean() == pytest.approx(0.7 * np.linalg.norm(skewed.optimum), rel=0.15)


def test_consensus_distance_is_relative_to_the_mean() -> None:
    assert consensus_distance(np.ones((4, 3))) == 0.0
    assert consensus_distance(np.array([[3.0, 4.0], [3.0, 4.0]]) * np.array([[0.9], [1.1]])) == pytest.approx(0.1)
    assert consensus_distance(np.zeros((2, 2))) == 0.0
    assert consensus_distance(np.array([[1.0], [-1.0]])) == np.inf

"""Simulated training: throughput, arithmetic and bytes of the four algorithms, checked against what can be reckoned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.topology import metropolis_weights, topology_named
from adpsgd_node.sim.training.ad_psgd import AdPsgdTraining
from adpsgd_node.sim.training.contract import Training
from adpsgd_node.sim.training.d_psgd import DPsgdTraining
from adpsgd_node.sim.training.objective import Objective
from adpsgd_node.sim.training.report import TrainingReport
from adpsgd_node.sim.training.run import completed, simulated, training_of
from adpsgd_node.sim.training.scenario import (
    Algorithm,
    ComputeConfig,
    FailureConfig,
    NetworkConfig,
    NetworkName,
    ObjectiveConfig,
    TrainingScenario,
)

FREE = NetworkConfig(latency_ms=0.0, model_bytes=0)
"""Links that cost nothing."""
MEGABYTES_A_SECOND = 8.0
"""In Mbit/s, as links are given."""
STEP_S = 0.1


def report_of(algorithm: Algorithm, **given: object) -> TrainingReport:
    return simulated(TrainingScenario(algorithm=algorithm, **given)).report  # type: ignore[arg-type]


def ran(scenario: TrainingScenario) -> Training:
    training = training_of(scenario)
    training.run()
    return training


@pytest.mark.parametrize("slower", [2, 10, 100])
def test_ad_psgd_loses_to_a_straggler_only_what_it_steps_less(slower: int) -> None:
    compute = ComputeConfig(slow=(f"n7={slower}",))

    report = report_of(Algorithm.AD_PSGD, nodes=8, steps=500, compute=compute)

    assert report.speedup == pytest.approx(7 + 1 / slower, rel=0.01)
    assert report.ideal_fraction == pytest.approx(1.0, rel=0.01)
    assert report.straggler == slower


@pytest.mark.parametrize("algorithm", [Algorithm.D_PSGD, Algorithm.ALLREDUCE])
@pytest.mark.parametrize("slower", [2, 10, 100])
def test_who_waits_for_all_goes_at_the_pace_of_the_straggler(algorithm: Algorithm, slower: int) -> None:
    compute = ComputeConfig(slow=(f"n3={slower}",))

    report = report_of(algorithm, nodes=8, steps=200, compute=compute, network=FREE)

    assert report.speedup == pytest.approx(8 / slower, rel=1e-9)


def test_workers_of_a_parameter_server_do_not_wait_for_a_straggler() -> None:
    compute = ComputeConfig(slow=("n7=10",))

    report = report_of(Algorithm.A_PSGD, nodes=8, steps=500, compute=compute, network=FREE)

    assert report.speedup == pytest.approx(7.1, rel=0.01)
    assert report.staleness_mean == pytest.approx(7.0, rel=0.05)  # all others push between a pull and its push


@pytest.mark.parametrize("algorithm", Algorithm)
def test_one_node_is_plain_sgd_bit_by_bit(algorithm: Algorithm) -> None:
    scenario = TrainingScenario(
        algorithm=algorithm, nodes=1, steps=50, objective=ObjectiveConfig(dimension=5, learning_rate=0.3), seed=4
    )
    objective = Objective(scenario)
    expected = objective.start
    for _ in range(scenario.steps):
        expected = expected - 0.3 * objective.gradient(0, expected)

    training = ran(scenario)

    assert np.array_equal(training.record.final, [expected])
    assert training.record.steps == 50


def test_a_gradient_is_taken_before_averaging_and_applied_after_it() -> None:
    # n0 steps from 0 to 0.1 s, then averages with n1 until 0.12 s, in the middle of n1's step from 0 to 0.15 s.
    scenario = TrainingScenario(
        nodes=2,
        steps=1,
        compute=ComputeConfig(slow=("n1=1.5",)),
        network=NetworkConfig(latency_ms=0.0, bandwidth_mbps=MEGABYTES_A_SECOND, model_bytes=20_000),
        objective=ObjectiveConfig(dimension=3, noise=0.0, skew=0.5, learning_rate=0.25),
    )
    objective = Objective(scenario)
    moved = [-0.25 * objective.gradient(node, objective.start) for node in (0, 1)]

    training = ran(scenario)

    assert training.record.ended_s == pytest.approx(0.15)
    assert training.record.exchanges == 1
    np.testing.assert_allclose(training.record.final, [moved[0] / 2, moved[0] / 2 + moved[1]], rtol=1e-14)


@pytest.mark.parametrize("codec", CodecName)
@pytest.mark.parametrize("topology", ["complete", "ring", "hypercube"])
def test_exchanges_and_mixings_keep_the_sum_and_bring_the_models_together(codec: CodecName, topology: str) -> None:
    for algorithm in (Algorithm.AD_PSGD, Algorithm.D_PSGD):
        scenario = TrainingScenario(
            algorithm=algorithm,
            topology=topology,
            nodes=12,
            steps=40,
            network=NetworkConfig(codec=codec),
            objective=ObjectiveConfig(learning_rate=0.0),
            failure=FailureConfig(crash=("n3@1.23",) if algorithm is Algorithm.AD_PSGD else ()),
        )
        training = training_of(scenario)
        assert isinstance(training, AdPsgdTraining | DPsgdTraining)
        training.parameters[:] = np.random.default_rng(1).standard_normal(training.parameters.shape)
        before, spread = training.parameters.sum(axis=0), training.parameters.std(axis=0).max()

        training.run()

        np.testing.assert_allclose(training.parameters.sum(axis=0), before, atol=1e-12)
        assert training.record.final.std(axis=0).max() < 0.25 * spread


@pytest.mark.parametrize("algorithm", [Algorithm.AD_PSGD, Algorithm.D_PSGD])
def test_models_that_are_the_same_stay_as_they_are_under_a_lossy_codec(algorithm: Algorithm) -> None:
    network, objective = NetworkConfig(codec=CodecName.BF16), ObjectiveConfig(learning_rate=0.0)
    training = training_of(
        TrainingScenario(algorithm=algorithm, nodes=4, steps=10, network=network, objective=objective)
    )
    assert isinstance(training, AdPsgdTraining | DPsgdTraining)
    training.parameters[:] = 0.1  # which bf16 cannot say exactly

    training.run()

    np.testing.assert_allclose(training.record.final, 0.1, rtol=1e-12)


@pytest.mark.parametrize("topology", ["complete", "ring", "exponential", "hypercube"])
def test_rounds_of_d_psgd_are_those_of_its_matrix(topology: str) -> None:
    nodes = 24  # few enough for the full matrix, and on a ring sparse enough to gather rows
    scenario = TrainingScenario(
        algorithm=Algorithm.D_PSGD,
        topology=topology,
        nodes=nodes if topology != "ring" else 40,
        steps=7,
        objective=ObjectiveConfig(noise=0.0, skew=1.0, dimension=4),
    )
    names = scenario.names
    rows = [metropolis_weights(topology_named(topology), names, own) for own in names]
    matrix = np.array([[row.get(other, 0.0) for other in names] for row in rows])
    objective = Objective(scenario)
    expected = np.zeros((scenario.nodes, 4))
    for _ in range(scenario.steps):
        expected = matrix @ expected - 0.1 * objective.curvature * (expected - objective.own_optimum)

    np.testing.assert_allclose(ran(scenario).record.final, expected, rtol=1e-12)


def test_all_reduce_is_sgd_with_the_mean_gradient() -> None:
    scenario = TrainingScenario(
        algorithm=Algorithm.ALLREDUCE, nodes=6, steps=9, objective=ObjectiveConfig(noise=0.0, skew=1.0)
    )
    objective = Objective(scenario)
    expected = objective.start
    for _ in range(scenario.steps):
        expected = expected - 0.1 * objective.curvature * (expected - objective.optimum)

    np.testing.assert_allclose(ran(scenario).record.final, [expected], rtol=1e-12)


def test_bytes_are_counted_exactly() -> None:
    def report(algorithm: Algorithm, codec: CodecName = CodecName.FP32) -> TrainingReport:
        network = NetworkConfig(model_bytes=1000, codec=codec)
        return report_of(algorithm, nodes=6, steps=20, topology="ring", network=network)

    gossip = report(Algorithm.AD_PSGD)
    assert gossip.exchanges >= 100
    assert gossip.bytes_per_node == 2 * 1000 * gossip.exchanges / 6
    half = report(Algorithm.AD_PSGD, CodecName.BF16)
    assert half.bytes_per_node == 1000 * half.exchanges / 6
    assert report(Algorithm.D_PSGD).bytes_per_node == 20 * 2 * 1000  # each round, to two neighbors
    served = report(Algorithm.A_PSGD)
    assert served.bytes_per_node == 2 * 1000 * served.exchanges / 6  # a gradient there, parameters back
    assert report(Algorithm.ALLREDUCE).bytes_per_node == pytest.approx(20 * 2 * 5 / 6 * 1000)


def test_neighbors_that_take_longer_than_a_step_set_the_pace_of_d_psgd() -> None:
    # 50 ms a message, one up and one down at a time, to three neighbors: 150 ms and a latency a round.
    network = NetworkConfig(latency_ms=2.0, bandwidth_mbps=MEGABYTES_A_SECOND, model_bytes=50_000)

    report = report_of(Algorithm.D_PSGD, nodes=4, steps=10, network=network)

    assert report.duration_s == pytest.approx(10 * 0.152)
    slower = replace(network, slow_link=("n1=2",), exchange_overhead_ms=5.0)
    assert report_of(Algorithm.D_PSGD, nodes=4, steps=10, network=slower).duration_s > 10 * (0.3 + 0.005)


def test_an_all_reduce_shows_as_far_as_no_computation_hides_it() -> None:
    # 100 MB over 4 nodes on 8 Gbit/s: 2 * 3 / 4 * 100 ms = 150 ms on the ring, in 4 buckets of which one never hides.
    network = NetworkConfig(latency_ms=0.0, bandwidth_mbps=8000.0, overlap=0.5)

    def round_s(network: NetworkConfig, step_ms: float) -> float:
        compute = ComputeConfig(step_ms=step_ms)
        return report_of(Algorithm.ALLREDUCE, nodes=4, steps=5, compute=compute, network=network).duration_s / 5

    assert round_s(network, 100.0) == pytest.approx(0.1 + 0.15 - 0.05)
    assert round_s(replace(network, overlap=0.0), 100.0) == pytest.approx(0.1 + 0.15)
    assert round_s(network, 1000.0) == pytest.approx(1.0 + 0.15 / 4)
    assert round_s(replace(network, slow_link=("n2=10",)), 100.0) == pytest.approx(0.1 + 1.5 - 0.05)
    assert round_s(replace(network, latency_ms=1.0), 100.0) == pytest.approx(0.1 + 0.156 - 0.05)


def test_a_parameter_server_is_held_up_by_its_link_and_relieved_by_a_second_one() -> None:
    # Its link takes 80 ms for each of the 15 workers elsewhere; the one that runs beside it needs no link.
    network = NetworkConfig(server_bytes_per_s=1e12)
    one = report_of(Algorithm.A_PSGD, nodes=16, steps=60, network=network)
    two = report_of(Algorithm.A_PSGD, nodes=16, steps=60, network=network, servers=2)

    assert one.samples_per_s == pytest.approx(32 * (1 / 0.08 + 1 / STEP_S), rel=0.01)
    assert two.samples_per_s == pytest.approx(32 / 0.04, rel=0.05)  # each serves half as many bytes, to all but itself


def test_a_parameter_server_applies_one_gradient_after_the_other() -> None:
    # 100 MB at 1 GB/s: ten updates a second, however many workers there are.
    network = NetworkConfig(latency_ms=0.0, bandwidth_mbps=1e9, server_bytes_per_s=1e9)

    assert report_of(Algorithm.A_PSGD, nodes=8, steps=50, network=network).samples_per_s == pytest.approx(320, rel=0.01)


def test_workers_of_a_parameter_server_move_as_far_in_a_step_as_all_reduce_does() -> None:
    objective = ObjectiveConfig(noise=0.0, learning_rate=0.01)
    served, reduced = (
        report_of(algorithm, nodes=8, steps=100, objective=objective, network=FREE)
        for algorithm in (Algorithm.A_PSGD, Algorithm.ALLREDUCE)
    )

    assert served.final_loss == pytest.approx(reduced.final_loss, rel=0.05)


def test_a_slow_link_costs_ad_psgd_exchanges_but_no_step() -> None:
    network = NetworkConfig(slow_link=("n2=10",))
    even, uneven = (
        report_of(Algorithm.AD_PSGD, nodes=8, steps=200, network=each) for each in (NetworkConfig(), network)
    )

    assert even.samples_per_s == uneven.samples_per_s
    assert uneven.exchanges < even.exchanges


def test_skewed_shards_and_a_straggler_bias_ad_psgd_but_not_all_reduce() -> None:
    given = {
        "nodes": 8,
        "steps": 1500,
        "compute": ComputeConfig(slow=("n7=10",)),
        "network": FREE,
        "objective": ObjectiveConfig(skew=2.0, noise=0.0),
    }

    assert (report_of(Algorithm.ALLREDUCE, **given).final_loss or 0.0) < 1e-6
    assert (report_of(Algorithm.AD_PSGD, **given).final_loss or 0.0) > 1e-2


def test_the_target_is_reached_n_times_sooner_when_the_rate_is_scaled() -> None:
    objective = ObjectiveConfig(scale_rate=True, learning_rate=0.002, stop_at_target=True)
    one, many = (
        report_of(Algorithm.AD_PSGD, nodes=nodes, steps=10_000, objective=objective, network=FREE) for nodes in (1, 32)
    )

    assert one.time_to_target_s is not None
    assert many.time_to_target_s is not None
    assert one.time_to_target_s / many.time_to_target_s == pytest.approx(32, rel=0.05)
    assert one.steps_total < 10_000
    assert one.samples_total == one.samples_to_target


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_same_seed_comes_to_the_same_and_another_to_something_else(algorithm: Algorithm) -> None:
    scenario = TrainingScenario(
        algorithm=algorithm,
        nodes=7,
        steps=60,
        topology="exponential",
        compute=ComputeConfig(step_distribution="lognormal:0.4", slow=("n2=3",)),
        network=NetworkConfig(network=NetworkName.REGION, codec=CodecName.BF16),
        failure=FailureConfig(crash=("n5@2",), detection_s=1.0),
        seed=11,
    )

    first, again, other = simulated(scenario), simulated(scenario), simulated(replace(scenario, seed=12))

    assert (first.report, first.points) == (again.report, again.points)
    assert first.report.seed == 11
    assert replace(other.report, seed=11) != first.report


def test_a_node_draws_the_same_times_and_noise_under_every_algorithm() -> None:
    scenario = TrainingScenario(nodes=3, steps=1, compute=ComputeConfig(step_distribution="lognormal:0.5"))
    alone, together = training_of(scenario), training_of(replace(scenario, algorithm=Algorithm.ALLREDUCE))
    rows = np.zeros((3, 64))

    for _ in range(70):  # beyond a block of either
        times = [alone.times.next_s(node) for node in (2, 0, 1)]
        noise = [alone.objective.gradient(node, rows[node]) for node in (2, 0, 1)]
        assert together.times.next_of((2, 0, 1)).tolist() == times
        assert np.array_equal(together.objective.gradients((2, 0, 1), rows), noise)


def test_what_is_not_finite_is_not_reported_as_a_figure() -> None:
    training = training_of(TrainingScenario(nodes=2, steps=2))
    assert isinstance(training, AdPsgdTraining)
    training.parameters[:] = [[1e200], [3e200]]

    report = completed(training)

    assert (report.final_loss, report.consensus_distance, report.time_to_target_s) == (None, None, None)


def test_a_parameter_server_with_many_workers_diverges_at_a_rate_that_one_node_bears() -> None:
    objective = ObjectiveConfig(learning_rate=1.9, noise=0.0)

    alone = report_of(Algorithm.A_PSGD, nodes=1, steps=200, objective=objective, network=FREE)
    many = report_of(Algorithm.A_PSGD, nodes=8, steps=200, objective=objective, network=FREE)

    assert alone.final_loss == pytest.approx(0.0, abs=1e-6)
    assert many.final_loss is None or many.final_loss > 1.0

"""What becomes of a simulated training when nodes are lost: who goes on, when, and what is said of who does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adpsgd_node.sim.training.ad_psgd import AdPsgdTraining
from adpsgd_node.sim.training.d_psgd import DPsgdTraining
from adpsgd_node.sim.training.report import TrainingReport
from adpsgd_node.sim.training.run import simulated, training_of
from adpsgd_node.sim.training.scenario import (
    Algorithm,
    FailureConfig,
    NetworkConfig,
    ObjectiveConfig,
    TrainingScenario,
)

NODES, STEPS, STEP_S = 8, 500, 0.1
CRASH_S, DETECTION_S = 20.02, 5.0


def scenario_of(algorithm: Algorithm, *crash: str, **given: object) -> TrainingScenario:
    return TrainingScenario(
        algorithm=algorithm,
        nodes=NODES,
        steps=STEPS,
        network=NetworkConfig(latency_ms=0.0, model_bytes=1000),
        failure=FailureConfig(crash=crash or (f"n3@{CRASH_S}",), detection_s=DETECTION_S),
        **given,  # type: ignore[arg-type]
    )


def report_of(algorithm: Algorithm, *crash: str, **given: object) -> TrainingReport:
    return simulated(scenario_of(algorithm, *crash, **given)).report


def steps_left() -> float:
    """Return how many steps each of the others has to make once one is lost in the middle of its 201st."""
    return (NODES * STEPS - NODES * 200) / (NODES - 1)


def test_ad_psgd_does_not_even_notice() -> None:
    report = report_of(Algorithm.AD_PSGD)

    assert report.stopped == ""
    assert report.steps_total == NODES * STEPS
    assert report.duration_s == pytest.approx(STEP_S * (200 + math.ceil(steps_left())))
    assert report.consensus_distance is not None
    assert report.consensus_distance < 0.5


@pytest.mark.parametrize("topology", ["complete", "ring", "exponential", "hypercube"])
def test_d_psgd_goes_on_once_the_lost_node_is_held_dead(topology: str) -> None:
    report = report_of(Algorithm.D_PSGD, topology=topology)

    assert report.stopped == ""
    assert report.steps_total >= NODES * STEPS
    detected = CRASH_S + DETECTION_S
    # On a sparse graph the wait spreads a hop a round: those farther away have made a round or two more by then.
    rounds = math.ceil(steps_left())
    assert detected + STEP_S * (rounds - 5) <= report.duration_s <= detected + STEP_S * (rounds + 1)
    assert report.final_loss is not None
    assert report.final_loss < 0.01


@pytest.mark.parametrize("algorithm", [Algorithm.AD_PSGD, Algorithm.D_PSGD])
def test_survivors_mix_over_a_graph_of_their_own(algorithm: Algorithm) -> None:
    # A ring without two of its nodes falls into two lines; laid anew it is a ring again, on which models come together.
    scenario = scenario_of(algorithm, "n2@0.3", "n6@0.3", topology="ring", objective=ObjectiveConfig(learning_rate=0.0))
    training = training_of(scenario)
    assert isinstance(training, AdPsgdTraining | DPsgdTraining)
    training.parameters[:] = np.random.default_rng(3).standard_normal(training.parameters.shape)

    training.run()

    assert training.record.final.shape == (NODES - 2, 64)
    assert training.record.final.std(axis=0).max() < 1e-6


def test_nothing_of_a_node_that_was_lost_before_it_sent_anything_is_mixed_in() -> None:
    objective = ObjectiveConfig(learning_rate=0.0)
    training = training_of(scenario_of(Algorithm.D_PSGD, "n3@0", objective=objective))
    assert isinstance(training, DPsgdTraining)
    training.parameters[3] = 100.0

    training.run()

    assert not training.record.final.any()
    assert training.record.bytes_sent == 1000 * 42 * (training.record.steps // 7)  # seven nodes, to six others each


def test_workers_of_a_parameter_server_do_not_miss_another_worker() -> None:
    report = report_of(Algorithm.A_PSGD, "n7@20")

    assert report.stopped == ""
    assert report.steps_total == NODES * STEPS


@pytest.mark.parametrize("servers", [1, 2])
def test_a_lost_parameter_server_stops_all_and_is_named(servers: int) -> None:
    lost = f"n{servers - 1}"

    report = report_of(Algorithm.A_PSGD, f"{lost}@20", servers=servers)

    assert lost in report.stopped
    assert "server" in report.stopped
    assert report.duration_s == pytest.approx(20 + DETECTION_S)
    assert report.steps_total == pytest.approx(NODES * 200, rel=0.02)


def test_all_reduce_stops_and_names_the_first_node_lost() -> None:
    report = report_of(Algorithm.ALLREDUCE, "n5@40", f"n3@{CRASH_S}")

    assert "n3" in report.stopped
    assert "n5" not in report.stopped
    assert report.duration_s == pytest.approx(CRASH_S + DETECTION_S)
    assert report.steps_total == pytest.approx(NODES * 200, rel=0.01)


@pytest.mark.parametrize("algorithm", [Algorithm.AD_PSGD, Algorithm.D_PSGD])
def test_training_ends_with_its_last_node(algorithm: Algorithm) -> None:
    report = report_of(algorithm, *(f"n{node}@{node + 1}.5" for node in range(NODES)))

    assert "n7" in report.stopped
    assert report.duration_s == pytest.approx(8.5)
    assert report.steps_total < NODES * 85
    assert report.final_loss is None
    assert report.consensus_distance is None


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_crash_after_the_end_changes_nothing(algorithm: Algorithm) -> None:
    untouched = TrainingScenario(algorithm=algorithm, nodes=NODES, steps=50)
    crashed = TrainingScenario(
        algorithm=algorithm, nodes=NODES, steps=50, failure=FailureConfig(crash=("n0@10000", "n1@10001"))
    )

    assert simulated(crashed).report == simulated(untouched).report


def test_exchanges_with_a_lost_node_break_and_are_made_with_others() -> None:
    # Transfers of 80 ms in every step: at the moment of the crash the lost node is in some of them.
    scenario = TrainingScenario(nodes=6, steps=300, failure=FailureConfig(crash=("n2@10",), detection_s=3.0))

    report = simulated(scenario).report

    assert report.broken >= 1
    assert report.stopped == ""
    assert report.exchanges > 300

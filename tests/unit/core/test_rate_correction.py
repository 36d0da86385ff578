from __future__ import annotations

import pytest

from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.core.rate_correction import LEAST_SPAN_S, WINDOW_S, RateCorrection
from adpsgd_node.ids import NodeId

A, B, C = NodeId("a", 1), NodeId("b", 1), NodeId("c", 1)


def watched(own: NodeId, most: float, step_s: dict[NodeId, float], until_s: float = 60.0) -> RateCorrection:
    """Watch nodes whose first step is done at time 0, and each next one after so many seconds."""
    correction = RateCorrection(own, most)
    for tick in range(int(until_s * 10)):
        now = tick / 10
        correction.observe(now, [ProgressEntry(node, 1 + int(now / each), 0) for node, each in step_s.items()])
    return correction


def test_each_scale_is_the_mean_rate_over_the_own_one_and_the_sum_of_rates_stays() -> None:
    step_s = {A: 0.1, B: 0.1, C: 1.0}
    rates = {node: 1 / each for node, each in step_s.items()}
    scales = {node: watched(node, 100.0, step_s).scale for node in step_s}
    mean = sum(rates.values()) / 3
    for node, rate in rates.items():
        assert scales[node] == pytest.approx(mean / rate, rel=0.1)
    assert sum(rates[node] * scales[node] for node in rates) == pytest.approx(sum(rates.values()), rel=0.1)


def test_no_scale_is_beyond_the_bound_in_either_direction() -> None:
    step_s = {A: 0.1, B: 0.1, C: 10.0}
    assert watched(C, 3.0, step_s).scale == 3.0
    assert watched(A, 1.2, {A: 0.1, B: 10.0, C: 10.0}).scale == pytest.approx(1 / 1.2)


def test_a_step_may_take_longer_than_the_window() -> None:
    correction = watched(A, 100.0, {A: 3 * WINDOW_S, B: WINDOW_S}, until_s=20 * WINDOW_S)
    assert correction.scale == pytest.approx(2.0, rel=0.1)


def test_until_its_own_rate_is_known_a_node_changes_nothing() -> None:
    correction = RateCorrection(A, 10.0)
    correction.observe(0.0, [ProgressEntry(A, 0, 0), ProgressEntry(B, 5, 0)])
    correction.observe(LEAST_SPAN_S, [ProgressEntry(A, 1, 0), ProgressEntry(B, 900, 0)])
    assert (correction.rate(A, LEAST_SPAN_S), correction.scale) == (None, 1.0)


def test_a_node_that_has_taken_no_step_yet_does_not_count() -> None:
    correction = RateCorrection(A, 10.0)
    for second in range(10):
        correction.observe(second, [ProgressEntry(A, 1 + 10 * second, 0), ProgressEntry(B, 0, 0)])
    assert correction.scale == pytest.approx(1.0)


def test_a_node_that_gets_slower_is_believed_to_be_before_its_next_step() -> None:
    correction = RateCorrection(B, 100.0)
    for second in range(30):
        correction.observe(second, [ProgressEntry(A, 1 + 10 * min(second, 10), 0), ProgressEntry(B, 1 + second, 0)])
    # Ten steps in the last 20 s, and one more at most: not the ten a second that it has done before.
    assert correction.rate(A, 29.0) == pytest.approx(11 / 20)


def test_nodes_that_step_no_more_are_forgotten() -> None:
    correction = watched(A, 100.0, {A: 1.0, B: 0.1})
    assert correction.scale > 4
    for second in range(60, 70):
        correction.observe(second, [ProgressEntry(A, 1 + second, 0)])
    assert correction.scale == pytest.approx(1.0)
    assert correction.rate(B, 70.0) is None


def test_a_pause_does_not_make_a_node_a_slow_one() -> None:
    correction = RateCorrection(A, 10.0)
    for second in range(60):
        steps = 1 + 10 * second if second < 20 else 201 + 10 * max(0, second - 50)  # it evaluates for half a minute
        correction.observe(second, [ProgressEntry(A, steps, 0), ProgressEntry(B, 1 + 10 * second, 0)])
        if second > 50:
            assert correction.scale < 1.5, f"{second} s"
    assert correction.scale == pytest.approx(1.0, rel=0.05)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpsgd_node.core.budget import ByteBudget


def test_the_burst_goes_at_once_and_the_next_byte_waits_for_the_rate() -> None:
    budget = ByteBudget(100.0, 50.0, now=7.0)
    assert budget.take(50, 7.0) == 0.0
    assert budget.take(20, 7.0) == pytest.approx(0.2)
    assert budget.take(10, 7.0) == pytest.approx(0.3)


def test_a_pause_earns_the_burst_and_no_more() -> None:
    budget = ByteBudget(100.0, 50.0, now=0.0)
    budget.take(50, 0.0)
    assert budget.take(50, 1000.0) == 0.0
    assert budget.take(1, 1000.0) == pytest.approx(0.01)


def test_a_message_larger_than_the_burst_waits_until_it_is_paid_for() -> None:
    budget = ByteBudget(100.0, 10.0, now=0.0)
    assert budget.take(210, 0.0) == pytest.approx(2.0)
    assert budget.take(100, 1.0) == pytest.approx(2.0)


def test_what_is_given_back_can_be_taken_by_another() -> None:
    budget = ByteBudget(100.0, 0.0, now=0.0)
    budget.take(500, 0.0)
    budget.give_back(500, 0.0)
    assert budget.take(100, 0.0) == pytest.approx(1.0)


def test_asking_how_long_a_queue_takes_takes_nothing() -> None:
    budget = ByteBudget(100.0, 0.0, now=0.0)
    budget.take(100, 0.0)
    assert budget.wait_s(300, 0.0) == pytest.approx(4.0)
    assert budget.wait_s(300, 0.0) == pytest.approx(4.0)


def test_a_clock_that_steps_back_earns_nothing_twice() -> None:
    budget = ByteBudget(100.0, 1000.0, now=10.0)
    budget.take(1000, 10.0)
    budget.take(0, 5.0)
    assert budget.take(100, 10.0) == pytest.approx(1.0)


def test_a_budget_without_a_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="a rate above 0"):
        ByteBudget(0.0, 1.0, now=0.0)


@given(
    takes=st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, 500)), min_size=1, max_size=40),
    rate=st.floats(1.0, 1000.0),
    burst=st.floats(0.0, 1000.0),
)
def test_no_time_span_sees_more_than_burst_and_rate_allow(
    takes: list[tuple[float, int]], rate: float, burst: float
) -> None:
    budget, now = ByteBudget(rate, burst, now=0.0), 0.0
    sent: list[tuple[float, int]] = []
    for pause, count in takes:
        now += pause
        sent.append((now + budget.take(count, now), count))
    for first in range(len(sent)):
        for last in range(first, len(sent)):
            total = sum(count for _, count in sent[first : last + 1])
            # The first message of a span may have been earned before the span began.
            allowed = burst + rate * (sent[last][0] - sent[first][0]) + sent[first][1]
            assert total <= allowed * (1 + 1e-9) + 1e-6

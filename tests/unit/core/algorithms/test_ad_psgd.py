from __future__ import annotations

import random
from collections import Counter

import pytest

from adpsgd_node.core.algorithms.ad_psgd import (
    AGREED_INTERVAL_S,
    FIRST_BACKOFF_S,
    FIRST_BUSY_RETRY_S,
    IDLE_INTERVAL_S,
    LARGEST_BACKOFF_S,
    LARGEST_BUSY_RETRY_S,
    LEAST_JITTER,
    Activity,
    ActivityChanged,
    AdPsgd,
    ExchangeEnded,
    Far,
    NeighborRenewed,
    NeighborsChanged,
    StartExchange,
    Stepped,
)
from adpsgd_node.core.exchange.outcome import Outcome


def _policy(*names: str, activity: Activity = Activity.STEPPING, rate: float = 1.0) -> AdPsgd:
    policy = AdPsgd(exchanges_per_step=rate, rng=random.Random(1))
    policy.handle(NeighborsChanged(names), 0.0)
    policy.handle(ActivityChanged(activity), 0.0)
    return policy


def test_each_step_starts_one_exchange_and_never_two_at_once() -> None:
    policy = _policy("a")
    assert policy.handle(Stepped(1), 0.0) == (StartExchange("a"),)
    assert policy.handle(Stepped(1), 0.1) == ()
    assert policy.handle(ExchangeEnded("a", Outcome.COMPLETE), 0.2) == (StartExchange("a"),)


def test_slow_network_builds_no_backlog() -> None:
    policy = _policy("a")
    policy.handle(Stepped(1), 0.0)
    policy.handle(Stepped(1000), 0.1)
    started = 0
    for _ in range(100):
        started += len(policy.handle(ExchangeEnded("a", Outcome.COMPLETE), 0.2))
    assert started == 2


@pytest.mark.parametrize(("rate", "expected"), [(0.25, 10), (1.0, 40)])
def test_pace_follows_exchanges_per_step(rate: float, expected: int) -> None:
    policy = _policy("a", rate=rate)
    started = 0
    for step in range(40):
        started += len(policy.handle(Stepped(1), float(step)))
        policy.handle(ExchangeEnded("a", Outcome.COMPLETE), step + 0.5)
    assert started == expected


def test_neighbors_are_drawn_uniformly() -> None:
    policy = _policy("a", "b", "c", "d")
    drawn: Counter[str] = Counter()
    for step in range(4000):
        for action in policy.handle(Stepped(1), float(step)):
            drawn[action.peer] += 1
            policy.handle(ExchangeEnded(action.peer, Outcome.COMPLETE), step + 0.5)
    assert sum(drawn.values()) == 4000
    assert all(abs(count - 1000) < 5 * (1000 * 0.75) ** 0.5 for count in drawn.values()), drawn


def test_busy_neighbor_costs_nothing_and_another_is_asked_at_once() -> None:
    policy = _policy("a", "b")
    (first,) = policy.handle(Stepped(1), 0.0)
    (second,) = policy.handle(ExchangeEnded(first.peer, Outcome.DECLINED), 0.0)
    assert {first.peer, second.peer} == {"a", "b"}
    assert policy.handle(ExchangeEnded(second.peer, Outcome.DECLINED), 0.0) == ()
    assert policy.deadline() == FIRST_BUSY_RETRY_S
    assert len(policy.expire(FIRST_BUSY_RETRY_S)) == 1


def test_neighbor_that_stays_busy_is_asked_ever_more_seldom_until_it_is_not() -> None:
    policy = _policy("a")
    policy.handle(Stepped(1), 0.0)
    now, pauses = 0.0, []
    for _ in range(6):
        policy.handle(ExchangeEnded("a", Outcome.DECLINED), now)
        due = policy.deadline()
        assert due is not None
        pauses.append(due - now)
        assert policy.expire(due) == (StartExchange("a"),)
        now = due
    assert pauses == pytest.approx([0.005, 0.01, 0.02, 0.04, LARGEST_BUSY_RETRY_S, LARGEST_BUSY_RETRY_S])
    policy.handle(ExchangeEnded("a", Outcome.COMPLETE), now)
    policy.handle(Stepped(1), now)
    policy.handle(ExchangeEnded("a", Outcome.DECLINED), now)
    assert policy.deadline() == now + FIRST_BUSY_RETRY_S


@pytest.mark.parametrize("outcome", [Outcome.BROKEN, Outcome.UNREACHABLE, Outcome.REFUSED])
def test_failing_neighbor_is_left_alone_for_a_time_that_doubles(outcome: Outcome) -> None:
    policy = _policy("a")
    policy.handle(Stepped(2), 0.0)
    now = 0.0
    for length in (FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S, 4 * FIRST_BACKOFF_S):
        policy.handle(ExchangeEnded("a", outcome), now)
        due = policy.deadline()
        assert due is not None
        assert now + LEAST_JITTER * length <= due <= now + length
        assert policy.expire(due) == (StartExchange("a"),)
        policy.handle(Stepped(1), due)
        now = due


def test_backoff_never_exceeds_its_limit_and_ends_with_a_good_exchange() -> None:
    policy, now = _policy("a", activity=Activity.IDLE), 0.0
    for _ in range(50):
        policy.handle(ExchangeEnded("a", Outcome.BROKEN), now)
        due = policy.deadline()
        assert due is not None
        assert due <= now + LARGEST_BACKOFF_S
        policy.expire(due)
        now = due
    policy.handle(ExchangeEnded("a", Outcome.COMPLETE), now)
    assert policy.deadline() == now + IDLE_INTERVAL_S


def test_nodes_that_lost_the_same_neighbor_do_not_come_back_together() -> None:
    dues = set()
    for seed in range(20):
        policy = AdPsgd(exchanges_per_step=1.0, rng=random.Random(seed))
        policy.handle(NeighborsChanged(("a",)), 0.0)
        policy.handle(ActivityChanged(Activity.IDLE), 0.0)
        policy.handle(ExchangeEnded("a", Outcome.UNREACHABLE), 0.0)
        dues.add(policy.deadline())
    assert len(dues) == 20


def test_neighbor_that_runs_as_another_boot_is_asked_at_once() -> None:
    policy = _policy("a", activity=Activity.IDLE)
    policy.handle(ExchangeEnded("a", Outcome.UNREACHABLE), 0.0)
    assert policy.handle(NeighborRenewed("a"), 0.01) == (StartExchange("a"),)


def test_stopped_node_starts_nothing() -> None:
    policy = _policy("a", activity=Activity.STOPPED)
    assert policy.handle(Stepped(5), 0.0) == ()
    assert policy.deadline() is None


def test_node_without_trainer_goes_on_mixing_slowly() -> None:
    policy = _policy("a", activity=Activity.STOPPED)
    assert policy.handle(ActivityChanged(Activity.IDLE), 5.0) == (StartExchange("a"),)
    assert policy.handle(ExchangeEnded("a", Outcome.COMPLETE), 6.0) == ()
    assert policy.deadline() == 6.0 + IDLE_INTERVAL_S


def test_settling_node_meets_far_neighbors_first_and_back_to_back() -> None:
    policy = _policy("a", "b", "c", activity=Activity.STOPPED)
    policy.handle(Far(("b",)), 0.0)
    assert policy.handle(ActivityChanged(Activity.SETTLING), 0.0) == (StartExchange("b"),)
    assert policy.handle(ExchangeEnded("b", Outcome.COMPLETE), 0.1) == (StartExchange("b"),)


def test_settling_node_slows_down_once_all_are_close() -> None:
    policy = _policy("a", activity=Activity.STOPPED)
    policy.handle(Far(()), 0.0)
    policy.handle(ActivityChanged(Activity.SETTLING), 0.0)
    assert policy.handle(ExchangeEnded("a", Outcome.COMPLETE), 1.0) == ()
    assert policy.deadline() == 1.0 + AGREED_INTERVAL_S


def test_settling_node_does_not_hurry_the_close_ones_while_a_far_one_is_unreachable() -> None:
    policy = _policy("a", "dead", activity=Activity.STOPPED)
    policy.handle(Far(("dead",)), 0.0)
    assert policy.handle(ActivityChanged(Activity.SETTLING), 0.0) == (StartExchange("dead"),)
    assert policy.handle(ExchangeEnded("dead", Outcome.UNREACHABLE), 0.0) == (StartExchange("a"),)
    assert policy.handle(ExchangeEnded("a", Outcome.COMPLETE), 0.01) == ()
    assert policy.deadline() == 0.01 + AGREED_INTERVAL_S


def test_node_alone_waits_for_neighbors() -> None:
    policy = _policy()
    assert policy.handle(Stepped(3), 0.0) == ()
    assert policy.deadline() is None
    assert policy.handle(NeighborsChanged(("a",)), 1.0) == (StartExchange("a"),)


def test_busy_neighbors_are_not_stormed_while_another_is_left_alone() -> None:
    policy = _policy("a", "b")
    policy.handle(Stepped(2), 0.0)
    started: list[str] = []
    outcomes = {"a": Outcome.UNREACHABLE, "b": Outcome.DECLINED}
    now, running = 0.0, "a" if policy._running == "a" else "b"
    for _ in range(20):
        actions = policy.handle(ExchangeEnded(running, outcomes[running]), now)
        if running == "a":
            actions += policy.handle(Stepped(1), now)  # what was unreachable has cost one
        while not actions:
            due = policy.deadline()
            assert due is not None
            assert due > now, "something is due now, yet nothing is started"
            now, actions = due, policy.expire(due)
        running = actions[0].peer
        started.append(running)
    assert now >= 0.05, f"{len(started)} exchanges were asked for within {now} s"

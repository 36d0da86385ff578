from __future__ import annotations

import itertools
import random

import pytest

from adpsgd_node.core.algorithms.d_psgd import (
    FIRST_RETRY_S,
    LEAST_JITTER,
    Admit,
    Asked,
    DPsgd,
    InboundEnded,
    Mixed,
    NeighborsChanged,
    Open,
    OutboundEnded,
    Paused,
    Resumed,
    Stepped,
    Withdrawn,
    opens,
)
from adpsgd_node.core.exchange.outcome import Outcome


def machine(*names: str, opened_here: str = "") -> DPsgd:
    policy = DPsgd(random.Random(1))
    policy.handle(NeighborsChanged(names, frozenset(opened_here)), 0.0)
    policy.handle(Resumed(), 0.0)
    return policy


def test_a_round_is_over_when_every_neighbor_has_been_met() -> None:
    policy = machine("a", "b", "c", opened_here="ab")
    assert policy.handle(Stepped(1), 0.0) == (Open("a"), Open("b"))
    assert policy.handle(Asked("c"), 0.1) == (Admit("c"),)
    assert policy.handle(OutboundEnded("a", Outcome.COMPLETE), 0.2) == ()
    assert policy.handle(InboundEnded("c"), 0.3) == ()
    assert policy.handle(OutboundEnded("b", Outcome.COMPLETE), 0.4) == (Mixed(1),)
    assert policy.handle(Stepped(2), 0.5) == (Open("a"), Open("b"))


def test_a_node_alone_waits_for_nobody() -> None:
    assert machine().handle(Stepped(1), 0.0) == (Mixed(1),)


def test_who_asks_between_two_rounds_waits_for_the_next() -> None:
    policy = machine("a")
    assert policy.handle(Asked("a"), 0.0) == ()
    assert policy.handle(Stepped(1), 0.1) == (Admit("a"),)
    assert policy.handle(InboundEnded("a"), 0.2) == (Mixed(1),)
    assert policy.handle(Asked("a"), 0.3) == ()


def test_who_has_been_met_in_a_round_is_let_in_again_only_in_the_next() -> None:
    policy = machine("a", "b")
    policy.handle(Stepped(1), 0.0)
    policy.handle(Asked("a"), 0.1)
    policy.handle(InboundEnded("a"), 0.2)
    assert policy.handle(Asked("a"), 0.3) == ()
    policy.handle(Asked("b"), 0.4)
    assert policy.handle(InboundEnded("b"), 0.5) == (Mixed(1),)
    assert policy.handle(Stepped(2), 0.6) == (Admit("a"),)


def test_who_asks_while_the_exchange_opened_to_it_runs_is_met_once_in_this_round() -> None:
    policy = machine("a", "b", opened_here="a")
    policy.handle(Stepped(1), 0.0)
    assert policy.handle(Asked("a"), 0.1) == ()  # it has stopped stepping, and now opens too
    assert policy.handle(OutboundEnded("a", Outcome.COMPLETE), 0.2) == ()
    policy.handle(Asked("b"), 0.3)
    assert policy.handle(InboundEnded("b"), 0.4) == (Mixed(1),)
    assert policy.handle(Stepped(2), 0.5) == (Admit("a"),), "it is met in the next round, and not opened to as well"


def test_who_waits_and_goes_is_not_let_in() -> None:
    policy = machine("a", "b")
    policy.handle(Asked("a"), 0.0)
    policy.handle(Withdrawn("a"), 0.1)
    assert policy.handle(Stepped(1), 0.2) == ()


def test_a_lost_neighbor_is_dropped_from_the_round() -> None:
    policy = machine("a", "b", opened_here="a")
    policy.handle(Stepped(1), 0.0)
    policy.handle(OutboundEnded("a", Outcome.COMPLETE), 0.1)
    assert policy.handle(NeighborsChanged(("a",), frozenset("a")), 9.0) == (Mixed(1),)


def test_a_new_neighbor_is_met_from_the_next_round_on() -> None:
    policy = machine("a")
    policy.handle(Stepped(1), 0.0)
    policy.handle(NeighborsChanged(("a", "b"), frozenset()), 0.1)
    policy.handle(Asked("a"), 0.2)
    assert policy.handle(InboundEnded("a"), 0.3) == (Mixed(1),)
    policy.handle(Stepped(2), 0.4)
    policy.handle(Asked("a"), 0.5)
    assert policy.handle(InboundEnded("a"), 0.6) == ()
    assert policy.handle(Asked("b"), 0.7) == (Admit("b"),)


def test_one_that_is_no_neighbor_yet_is_let_in_and_the_round_waits_for_its_end() -> None:
    policy = machine("a")
    policy.handle(Stepped(1), 0.0)
    assert policy.handle(Asked("new"), 0.1) == (Admit("new"),)
    policy.handle(Asked("a"), 0.2)
    assert policy.handle(InboundEnded("a"), 0.3) == ()
    assert policy.handle(InboundEnded("new"), 0.4) == (Mixed(1),)


@pytest.mark.parametrize("outcome", [Outcome.PARTIAL, Outcome.BROKEN])
def test_a_neighbor_met_by_half_has_been_met(outcome: Outcome) -> None:
    policy = machine("a", opened_here="a")
    policy.handle(Stepped(1), 0.0)
    assert policy.handle(OutboundEnded("a", outcome), 0.1) == (Mixed(1),)


@pytest.mark.parametrize("outcome", [Outcome.DECLINED, Outcome.REFUSED, Outcome.UNREACHABLE])
def test_an_exchange_that_did_not_come_about_is_tried_again_after_pauses_that_grow(outcome: Outcome) -> None:
    policy = machine("a", opened_here="a")
    policy.handle(Stepped(1), 0.0)
    now = 0.0
    for longest in (FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S):
        assert policy.handle(OutboundEnded("a", outcome), now) == ()
        deadline = policy.deadline()
        assert deadline is not None
        assert LEAST_JITTER * longest <= deadline - now <= longest
        assert policy.expire(deadline) == (Open("a"),)
        now = deadline
    assert policy.handle(OutboundEnded("a", Outcome.COMPLETE), now) == (Mixed(1),)
    assert policy.deadline() is None


def test_a_node_that_pauses_waits_for_nobody_and_lets_everybody_in() -> None:
    policy = machine("a", "b", opened_here="a")
    policy.handle(Stepped(1), 0.0)
    assert policy.handle(Paused(), 0.1) == (Mixed(1),)
    assert policy.handle(Stepped(2), 0.2) == (Mixed(2),)
    assert policy.handle(Asked("b"), 0.3) == (Admit("b"),)
    policy.handle(InboundEnded("b"), 0.4)
    policy.handle(OutboundEnded("a", Outcome.COMPLETE), 0.5)
    policy.handle(Resumed(), 0.6)
    assert policy.handle(Stepped(3), 0.7) == (Open("a"),)


def test_exactly_one_end_of_an_edge_opens_its_exchanges() -> None:
    names = [f"node-{number}" for number in range(40)]
    assert all(opens(one, other) != opens(other, one) for one, other in itertools.combinations(names, 2))
    shares = [sum(opens(name, other) for other in names if other != name) for name in names]
    assert min(shares) > 8
    assert max(shares) < 31

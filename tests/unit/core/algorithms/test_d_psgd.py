from __future__ import annotations

import itertools
import random

import pytest

from adpsgd_node.core.algorithms.d_psgd import (
    FIRST_RETRY_S,
    LEAST_JITTER,
    MAX_HEARD,
    Admit,
    Asked,
    DPsgd,
    InboundEnded,
    Mixed,
    NeighborRenewed,
    NeighborsChanged,
    Open,
    OutboundEnded,
    Paused,
    Resumed,
    Stepped,
    Withdrawn,
    opens,
)
from adpsgd_node.core.exchange.frame import MAX_ROUND
from adpsgd_node.core.exchange.outcome import Outcome


def machine(*names: str, opened_here: str | set[str] = "") -> DPsgd:
    policy = DPsgd(random.Random(1))
    policy.handle(NeighborsChanged(names, frozenset(opened_here)), 0.0)
    policy.handle(Resumed(), 0.0)
    return policy


TICKETS: dict[str, int] = {}


def ticket(peer: str) -> int:
    return TICKETS.setdefault(peer, len(TICKETS) + 1)


def asked(peer: str, round_: int = 1) -> Asked:
    return Asked(ticket(peer), peer, round_)


def admit(peer: str) -> Admit:
    return Admit(ticket(peer))


def inbound_ended(peer: str) -> InboundEnded:
    return InboundEnded(ticket(peer))


def withdrawn(peer: str) -> Withdrawn:
    return Withdrawn(ticket(peer))


def test_a_round_is_over_when_every_neighbor_has_been_met() -> None:
    policy = machine("a", "b", "c", opened_here="ab")
    assert policy.handle(Stepped(1), 0.0) == (Open("a"), Open("b"))
    assert policy.handle(asked("c"), 0.1) == (admit("c"),)
    assert policy.handle(OutboundEnded("a", Outcome.COMPLETE, 1), 0.2) == ()
    assert policy.handle(inbound_ended("c"), 0.3) == ()
    assert policy.handle(OutboundEnded("b", Outcome.COMPLETE, 1), 0.4) == (Mixed(1),)
    assert policy.handle(Stepped(2), 0.5) == (Open("a"), Open("b"))


def test_a_node_alone_waits_for_nobody() -> None:
    assert machine().handle(Stepped(1), 0.0) == (Mixed(1),)


def test_who_asks_between_two_rounds_waits_for_the_next() -> None:
    policy = machine("a")
    assert policy.handle(asked("a"), 0.0) == ()
    assert policy.handle(Stepped(1), 0.1) == (admit("a"),)
    assert policy.handle(inbound_ended("a"), 0.2) == (Mixed(1),)
    assert policy.handle(asked("a"), 0.3) == ()


def test_who_has_been_met_in_a_round_is_let_in_again_only_in_the_next() -> None:
    policy = machine("a", "b")
    policy.handle(Stepped(1), 0.0)
    policy.handle(asked("a", 1), 0.1)
    policy.handle(inbound_ended("a"), 0.2)
    assert policy.handle(asked("a", 2), 0.3) == ()
    policy.handle(asked("b", 1), 0.4)
    assert policy.handle(inbound_ended("b"), 0.5) == (Mixed(1),)
    assert policy.handle(Stepped(2), 0.6) == (admit("a"),)


def test_who_asks_while_the_exchange_opened_to_it_runs_is_let_in_and_both_ends_are_waited_for() -> None:
    policy = machine("a", "b", opened_here="a")
    policy.handle(Stepped(1), 0.0)
    assert policy.handle(asked("a", 0), 0.1) == (admit("a"),)  # it has stopped stepping, and now opens too
    policy.handle(asked("b"), 0.2)
    assert policy.handle(inbound_ended("b"), 0.3) == ()
    assert policy.handle(OutboundEnded("a", Outcome.COMPLETE, 1), 0.4) == ()
    assert policy.handle(inbound_ended("a"), 0.5) == (Mixed(1),)
    assert policy.handle(Stepped(2), 0.6) == (Open("a"),)


@pytest.mark.parametrize("said", ["asking", "answering"])
def test_a_neighbor_that_is_in_no_round_is_not_waited_for_but_opened_to(said: str) -> None:
    policy = machine("a", opened_here="a" if said == "answering" else "")
    policy.handle(Stepped(1), 0.0)
    if said == "asking":
        assert policy.handle(asked("a", 0), 0.1) == (admit("a"),)
        assert policy.handle(inbound_ended("a"), 0.2) == (Mixed(1),)
    else:
        assert policy.handle(OutboundEnded("a", Outcome.COMPLETE, 0), 0.2) == (Mixed(1),)
        policy.handle(NeighborsChanged(("a",), frozenset()), 0.3)
    assert policy.handle(Stepped(2), 0.4) == (Open("a"),)
    assert policy.handle(OutboundEnded("a", Outcome.COMPLETE, 7), 0.5) == (Mixed(2),)
    assert policy.handle(Stepped(3), 0.6) == (), "it is in rounds again, and opens"


def test_a_neighbor_that_nobody_can_dial_is_waited_for_in_any_case() -> None:
    policy = machine("a")
    policy.handle(NeighborsChanged(("a",), frozenset(), frozenset("a")), 0.0)
    policy.handle(Stepped(1), 0.1)
    policy.handle(asked("a", 0), 0.2)
    policy.handle(inbound_ended("a"), 0.3)
    assert policy.handle(Stepped(2), 0.4) == ()


def test_another_life_of_a_neighbor_is_expected_to_be_in_rounds() -> None:
    policy = machine("a")
    policy.handle(Stepped(1), 0.0)
    policy.handle(asked("a", 0), 0.1)
    policy.handle(inbound_ended("a"), 0.2)
    policy.handle(NeighborRenewed("a"), 0.3)
    assert policy.handle(Stepped(2), 0.4) == ()


def test_who_waits_and_goes_is_not_let_in() -> None:
    policy = machine("a", "b")
    policy.handle(asked("a"), 0.0)
    policy.handle(withdrawn("a"), 0.1)
    assert policy.handle(Stepped(1), 0.2) == ()


def test_a_lost_neighbor_is_dropped_from_the_round() -> None:
    policy = machine("a", "b", opened_here="a")
    policy.handle(Stepped(1), 0.0)
    policy.handle(OutboundEnded("a", Outcome.COMPLETE, 1), 0.1)
    assert policy.handle(NeighborsChanged(("a",), frozenset("a")), 9.0) == (Mixed(1),)


def test_a_new_neighbor_is_met_in_the_round_that_runs() -> None:
    policy = machine("a")
    policy.handle(Stepped(1), 0.0)
    assert policy.handle(NeighborsChanged(("a", "b", "c"), frozenset("c")), 0.1) == (Open("c"),)
    policy.handle(asked("a"), 0.2)
    policy.handle(OutboundEnded("c", Outcome.COMPLETE, 1), 0.3)
    assert policy.handle(inbound_ended("a"), 0.4) == ()
    assert policy.handle(asked("b"), 0.5) == (admit("b"),)
    assert policy.handle(inbound_ended("b"), 0.6) == (Mixed(1),)


def test_who_is_a_round_ahead_waits_until_the_other_has_come_so_far() -> None:
    policy = machine("a", "b")
    policy.handle(Stepped(1), 0.0)
    policy.handle(asked("a", 1), 0.1)
    policy.handle(inbound_ended("a"), 0.2)
    assert policy.handle(asked("a", 2), 0.3) == ()
    assert policy.round == 1
    policy.handle(asked("b", 1), 0.4)
    assert policy.handle(inbound_ended("b"), 0.5) == (Mixed(1),)
    assert policy.handle(Stepped(2), 0.6) == (admit("a"),)
    assert policy.round == 2


def test_who_is_rounds_ahead_is_not_waited_for_and_the_next_round_is_counted_like_theirs() -> None:
    policy = machine("ahead", "b")
    policy.handle(Stepped(1), 0.0)
    assert policy.handle(asked("ahead", 640), 0.1) == (), "it has met others in that round, as this node will"
    policy.handle(asked("b", 1), 0.2)
    assert policy.handle(inbound_ended("b"), 0.3) == (Mixed(1),)
    assert policy.handle(Stepped(2), 0.4) == (admit("ahead"),)
    assert policy.round == 640


def test_one_that_answers_from_rounds_ahead_is_caught_up_with() -> None:
    policy = machine("ahead", opened_here={"ahead"})
    assert policy.handle(Stepped(1), 0.0) == (Open("ahead"),)
    assert policy.handle(OutboundEnded("ahead", Outcome.COMPLETE, 640), 0.1) == (Mixed(1),)
    policy.handle(Stepped(2), 0.2)
    assert policy.round == 640


def test_who_is_rounds_behind_is_let_in_at_once() -> None:
    policy = machine("late")
    policy.handle(Stepped(1), 0.0)
    policy.handle(OutboundEnded("x", Outcome.COMPLETE, 640), 0.1)
    policy.handle(Paused(), 0.2)
    policy.handle(Resumed(), 0.3)
    policy.handle(Stepped(2), 0.4)
    assert policy.round == 640
    assert policy.handle(asked("late", 1), 0.5) == (admit("late"),)
    assert policy.handle(inbound_ended("late"), 0.6) == (), "it has heard how far the others are, and comes again"
    assert policy.handle(asked("late", 640), 0.7) == (admit("late"),)
    assert policy.handle(inbound_ended("late"), 0.8) == (Mixed(2),)


def test_a_node_that_waits_and_its_ghost_are_told_apart() -> None:
    policy = machine("a", "b")
    policy.handle(Stepped(1), 0.0)
    policy.handle(Asked(1, "a", 5), 0.1)
    assert policy.handle(Asked(2, "a", 1), 0.2) == (Admit(2),)
    policy.handle(Withdrawn(1), 0.3)
    policy.handle(InboundEnded(2), 0.4)
    policy.handle(Asked(3, "b", 1), 0.5)
    assert policy.handle(InboundEnded(3), 0.6) == (Mixed(1),)


def test_another_boot_of_a_neighbor_is_met_though_the_one_before_has_been() -> None:
    policy = machine("a", "b", opened_here="a")
    policy.handle(Stepped(1), 0.0)
    policy.handle(OutboundEnded("a", Outcome.COMPLETE, 1), 0.1)
    assert policy.handle(NeighborRenewed("a"), 0.2) == (Open("a"),)


def test_no_claim_pushes_a_node_past_what_the_wire_carries() -> None:
    policy = machine("liar")
    policy.handle(asked("liar", MAX_ROUND), 0.0)
    policy.handle(Stepped(1), 0.1)
    assert policy.round == MAX_HEARD < MAX_ROUND / 1.5


def test_who_is_in_no_round_is_let_in_whenever_it_asks() -> None:
    policy = machine("a", "b")
    policy.handle(Stepped(1), 0.0)
    assert policy.handle(asked("a", 0), 0.1) == (admit("a"),)
    policy.handle(inbound_ended("a"), 0.2)
    assert policy.handle(asked("a", 0), 0.3) == (admit("a"),), "others may be waiting for it meanwhile"


def test_one_that_is_no_neighbor_yet_is_let_in_and_the_round_waits_for_its_end() -> None:
    policy = machine("a")
    policy.handle(Stepped(1), 0.0)
    assert policy.handle(asked("new"), 0.1) == (admit("new"),)
    policy.handle(asked("a"), 0.2)
    assert policy.handle(inbound_ended("a"), 0.3) == ()
    assert policy.handle(inbound_ended("new"), 0.4) == (Mixed(1),)


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
    assert policy.handle(OutboundEnded("a", Outcome.COMPLETE, 1), now) == (Mixed(1),)
    assert policy.deadline() is None


def test_a_node_that_pauses_waits_for_nobody_and_lets_everybody_in() -> None:
    policy = machine("a", "b", opened_here="a")
    policy.handle(Stepped(1), 0.0)
    assert policy.handle(Paused(), 0.1) == (Mixed(1),)
    assert policy.handle(Stepped(2), 0.2) == (Mixed(2),)
    assert policy.handle(asked("b"), 0.3) == (admit("b"),)
    policy.handle(inbound_ended("b"), 0.4)
    policy.handle(OutboundEnded("a", Outcome.COMPLETE, 1), 0.5)
    policy.handle(Resumed(), 0.6)
    assert policy.handle(Stepped(3), 0.7) == (Open("a"),)


def test_exactly_one_end_of_an_edge_opens_its_exchanges() -> None:
    names = [f"node-{number}" for number in range(40)]
    assert all(opens(one, other) != opens(other, one) for one, other in itertools.combinations(names, 2))
    shares = [sum(opens(name, other) for other in names if other != name) for name in names]
    assert min(shares) > 8
    assert max(shares) < 31

from __future__ import annotations

import pytest

from adpsgd_node.core.exchange.frame import AbortReason
from adpsgd_node.core.exchange.quarantine import (
    FIRST_S,
    FORGIVING_EXCHANGES,
    LONGEST_S,
    MAX_OFFENDERS,
    MAX_REFUSING,
    REFUSAL_HOLDS_S,
    Offence,
    OffenceKind,
    Quarantine,
    Refusals,
    accusation,
)
from adpsgd_node.ids import NodeId

ADA = NodeId("ada", 1)
BOB = NodeId("bob", 1)
JUMPED = Offence(OffenceKind.NORM_JUMP, 3, 98.4)
NAN = Offence(OffenceKind.NON_FINITE, 0)


def _offend(quarantine: Quarantine, now: float) -> float:
    """Offend, and return the time at which that quarantine ends."""
    sentence = quarantine.offended(ADA, JUMPED, now)
    assert sentence is not None
    return now + sentence.seconds


def test_offender_is_left_alone_for_a_time_that_doubles_up_to_an_hour() -> None:
    quarantine, now, lengths = Quarantine(), 0.0, []
    for _ in range(9):
        end = _offend(quarantine, now)
        lengths.append(end - now)
        assert quarantine.holds(ADA, end - 0.1)
        assert not quarantine.holds(ADA, end)
        now = end
    assert lengths == [min(LONGEST_S, FIRST_S * 2**number) for number in range(9)]
    assert lengths[-1] == LONGEST_S


def test_offence_during_quarantine_was_sent_before_it_and_costs_nothing_more() -> None:
    quarantine = Quarantine()
    end = _offend(quarantine, 0.0)
    assert quarantine.offended(ADA, NAN, 1.0) is None
    assert not quarantine.holds(ADA, end)


def test_reason_names_chunk_ratio_and_the_time_left() -> None:
    quarantine = Quarantine()
    quarantine.offended(ADA, JUMPED, 0.0)
    quarantine.offended(BOB, NAN, 0.0)
    assert quarantine.why(ADA, 10.0) == "norm jump: chunk 3 was 98.4 times as large as expected; for 20 s more"
    assert quarantine.why(BOB, 10.0) == "chunk 0 was not finite; for 20 s more"
    assert quarantine.count(10.0) == 2
    assert quarantine.why(ADA, FIRST_S) == ""
    assert quarantine.count(FIRST_S) == 0


def test_clean_exchanges_forgive_one_offence_after_the_other() -> None:
    quarantine = Quarantine()
    end = _offend(quarantine, _offend(quarantine, 0.0))
    for _ in range(FORGIVING_EXCHANGES):
        quarantine.clean(ADA)
    sentence = quarantine.offended(ADA, JUMPED, end)
    assert sentence is not None
    assert (sentence.offences, sentence.seconds) == (2, 2 * FIRST_S), "one of two was forgiven"
    for _ in range(2 * FORGIVING_EXCHANGES):
        quarantine.clean(ADA)
    assert len(quarantine) == 0


def test_fewer_clean_exchanges_forgive_nothing() -> None:
    quarantine = Quarantine()
    end = _offend(quarantine, 0.0)
    for _ in range(FORGIVING_EXCHANGES - 1):
        quarantine.clean(ADA)
    sentence = quarantine.offended(ADA, JUMPED, end)
    assert sentence is not None
    assert sentence.seconds == 2 * FIRST_S


def test_new_boot_starts_clean() -> None:
    quarantine = Quarantine()
    _offend(quarantine, 0.0)
    assert not quarantine.holds(NodeId("ada", 2), 1.0)
    quarantine.forget(ADA)
    assert len(quarantine) == 0


def test_record_of_offenders_is_bounded() -> None:
    quarantine = Quarantine()
    for number in range(MAX_OFFENDERS + 3):
        quarantine.offended(NodeId(f"n{number}", 1), NAN, 0.0)
    assert len(quarantine) == MAX_OFFENDERS
    assert not quarantine.holds(NodeId("n0", 1), 1.0)
    assert quarantine.holds(NodeId(f"n{MAX_OFFENDERS + 2}", 1), 1.0)


def test_one_peer_that_refuses_is_no_problem_and_two_are() -> None:
    refusals = Refusals()
    refusals.refused(ADA, "norm jump", 0.0)
    refusals.refused(ADA, "norm jump", 1.0)
    assert refusals.problem(1.0) == ""
    refusals.refused(BOB, "norm jump", 1.0)
    assert refusals.problem(1.0) == "2 peers refuse what this node sends (ada, bob): norm jump"


def test_refusal_is_over_after_a_time_and_with_the_next_exchange() -> None:
    refusals = Refusals()
    for peer in (ADA, BOB):
        refusals.refused(peer, "norm jump", 0.0)
    assert refusals.problem(REFUSAL_HOLDS_S - 1)
    assert not refusals.problem(REFUSAL_HOLDS_S)
    assert not refusals.holds(ADA, REFUSAL_HOLDS_S)
    refusals.accepted(BOB)
    assert not refusals.problem(1.0)
    assert refusals.holds(ADA, 1.0)
    assert not refusals.holds(BOB, 1.0)


def test_table_of_refusing_peers_and_their_list_are_bounded() -> None:
    refusals = Refusals()
    for number in range(MAX_REFUSING + 1):
        refusals.refused(NodeId(f"n{number:04}", 1), "norm jump", 0.0)
    assert not refusals.holds(NodeId("n0000", 1), 0.0)
    assert len(refusals.problem(0.0)) < 200


@pytest.mark.parametrize("reason", AbortReason)
def test_only_an_abort_over_the_initiators_chunk_accuses_it(reason: AbortReason) -> None:
    assert bool(accusation(reason)) == (reason is not AbortReason.NON_FINITE_OWN)

from __future__ import annotations

import random

import pytest

from adpsgd_node.core.exchange.rate import (
    LEAST_IDLE_S,
    LEAST_WHOLE_S,
    LONGEST_IDLE_S,
    LONGEST_WHOLE_S,
    MAX_MEASURED_PEERS,
    UNKNOWN_BYTES_PER_S,
    UNKNOWN_IDLE_S,
    UNKNOWN_WHOLE_S,
    PeerRate,
    Rates,
)
from adpsgd_node.ids import NodeId

MODEL = 200 << 20
CHUNK = 1 << 20


def _measured(bytes_per_s: float, *, jitter: float = 0.0, exchanges: int = 20) -> PeerRate:
    """Return what is known of a peer after some exchanges; jitter: part of the pace, either way."""
    rate, rng = PeerRate(), random.Random(1)
    for _ in range(exchanges):
        for _ in range(MODEL // CHUNK):
            rate.waited(CHUNK / bytes_per_s * (1 + jitter * rng.uniform(-1, 1)))
        rate.completed(MODEL, MODEL / bytes_per_s * (1 + jitter * rng.uniform(-1, 1)))
    return rate


def test_unknown_peer_is_given_the_time_that_the_lowest_trusted_speed_needs() -> None:
    limits = PeerRate().deadlines(MODEL, CHUNK)
    assert limits.idle_s == UNKNOWN_IDLE_S + CHUNK / UNKNOWN_BYTES_PER_S
    assert limits.whole_s == UNKNOWN_WHOLE_S + MODEL / UNKNOWN_BYTES_PER_S


def test_fast_peer_that_becomes_slow_does_not_hold_a_slot_for_minutes() -> None:
    limits = _measured(100e6).deadlines(MODEL, CHUNK)
    assert limits.idle_s == LEAST_IDLE_S
    assert LEAST_WHOLE_S <= limits.whole_s < 20.0
    assert 100 * limits.whole_s < MODEL / 64e3, "what it would take at 64 kB/s"


@pytest.mark.parametrize("bytes_per_s", [200e3, 1e6, 30e6])
@pytest.mark.parametrize("jitter", [0.0, 0.3, 0.8])
def test_no_exchange_within_the_usual_jitter_of_a_slow_peer_is_broken_off(bytes_per_s: float, jitter: float) -> None:
    limits = _measured(bytes_per_s, jitter=jitter).deadlines(MODEL, CHUNK)
    slowest = 1 + jitter
    assert min(LONGEST_IDLE_S, 2 * slowest * CHUNK / bytes_per_s) <= limits.idle_s
    assert min(LONGEST_WHOLE_S, 2 * slowest * MODEL / bytes_per_s) <= limits.whole_s


def test_missed_deadline_doubles_the_next_ones_until_an_exchange_completes() -> None:
    rate = _measured(1e6)
    before = rate.deadlines(MODEL, CHUNK)
    rate.timed_out()
    once = rate.deadlines(MODEL, CHUNK)
    rate.timed_out()
    twice = rate.deadlines(MODEL, CHUNK)
    assert once.whole_s == 2 * before.whole_s
    assert once.idle_s == 2 * before.idle_s
    assert twice.whole_s == min(LONGEST_WHOLE_S, 4 * before.whole_s)
    rate.completed(MODEL, MODEL / 1e6)
    assert rate.deadlines(MODEL, CHUNK).whole_s < once.whole_s


def test_peer_that_became_slow_for_good_is_measured_anew_in_the_end() -> None:
    rate = _measured(100e6)
    needed, tries = MODEL / 1e6, 0
    while rate.deadlines(MODEL, CHUNK).whole_s < needed:
        rate.timed_out()
        tries += 1
        assert tries < 8
    for _ in range(10):
        rate.completed(MODEL, needed)
    assert rate.deadlines(MODEL, CHUNK).whole_s > 2 * needed


def test_no_deadline_exceeds_its_cap_however_often_it_was_missed() -> None:
    rate = _measured(1e3, exchanges=1)
    for _ in range(100):
        rate.timed_out()
    limits = rate.deadlines(1 << 50, 1 << 30)
    assert (limits.idle_s, limits.whole_s) == (LONGEST_IDLE_S, LONGEST_WHOLE_S)


def test_table_is_bounded_and_forgets_the_peer_met_longest_ago() -> None:
    rates = Rates()
    for number in range(MAX_MEASURED_PEERS):
        rates.of(NodeId(f"n{number}", 1)).timed_out()
    kept = rates.of(NodeId("n0", 1))
    rates.of(NodeId("one-more", 1))
    assert len(rates) == MAX_MEASURED_PEERS
    assert rates.of(NodeId("n0", 1)) is kept
    unknown = PeerRate().deadlines(MODEL, CHUNK)
    assert rates.of(NodeId("n1", 1)).deadlines(MODEL, CHUNK) == unknown


def test_another_boot_of_a_name_is_measured_anew() -> None:
    rates = Rates()
    rates.of(NodeId("ada", 1)).timed_out()
    assert rates.of(NodeId("ada", 2)).deadlines(MODEL, CHUNK) == PeerRate().deadlines(MODEL, CHUNK)
    rates.forget(NodeId("ada", 1))
    assert len(rates) == 1

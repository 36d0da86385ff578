from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adpsgd_node.core.exchange.arbiter import Terms, judge
from adpsgd_node.core.exchange.frame import CodecName, Decline, DeclineReason, Open
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId, SchemaHash

SELF = NodeId("self", 7)
TERMS = Terms(
    self_id=SELF,
    run_id=RunId("run"),
    schema=SchemaHash(b"s" * 32),
    chunk_bytes=4096,
    chunk_count=3,
    ready=True,
    poisoned=False,
    stopping=False,
    inbound=0,
    max_inbound=2,
)
OPEN = Open(
    protocol=PROTOCOL_VERSION,
    run_id=RunId("run"),
    schema=SchemaHash(b"s" * 32),
    initiator=NodeId("ada", 1),
    responder=SELF,
    exchange_id=1,
    codec=CodecName.FP32,
    chunk_bytes=4096,
    chunk_count=3,
    step=0,
)


def _reason(open_: Open = OPEN, terms: Terms = TERMS, **states: bool) -> DeclineReason | None:
    flags = {"barred": False, "unsettled": False, "journal_full": False} | states
    decline = judge(open_, terms, **flags)
    return None if decline is None else decline.reason


def test_open_that_fits_is_accepted() -> None:
    assert _reason() is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": PROTOCOL_VERSION + 1}, DeclineReason.PROTOCOL),
        ({"run_id": RunId("other")}, DeclineReason.RUN),
        ({"responder": NodeId("self", 6)}, DeclineReason.IDENTITY),
        ({"initiator": NodeId("self", 1)}, DeclineReason.IDENTITY),
        ({"schema": SchemaHash(b"t" * 32)}, DeclineReason.SCHEMA),
        ({"chunk_count": 4}, DeclineReason.SCHEMA),
        ({"chunk_bytes": 8192}, DeclineReason.SCHEMA),
    ],
)
def test_handshake_that_does_not_fit_is_declined_by_name(change: dict[str, Any], reason: DeclineReason) -> None:
    assert _reason(replace(OPEN, **change)) is reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": None}, DeclineReason.NOT_READY),
        ({"ready": False}, DeclineReason.NOT_READY),
        ({"poisoned": True}, DeclineReason.POISONED),
        ({"stopping": True}, DeclineReason.STOPPING),
        ({"inbound": 2}, DeclineReason.BUSY),
    ],
)
def test_node_that_cannot_exchange_now_says_why(change: dict[str, Any], reason: DeclineReason) -> None:
    assert _reason(terms=replace(TERMS, **change)) is reason


@pytest.mark.parametrize(
    ("state", "reason"),
    [("barred", DeclineReason.SETTLED), ("unsettled", DeclineReason.BUSY), ("journal_full", DeclineReason.BUSY)],
)
def test_exchange_that_ended_or_waits_for_settling_is_declined(state: str, reason: DeclineReason) -> None:
    assert _reason(**{state: True}) is reason


def test_decline_names_what_was_expected_and_what_came() -> None:
    decline = judge(replace(OPEN, run_id=RunId("other")), TERMS, barred=False, unsettled=False, journal_full=False)
    assert decline is not None
    assert "'run'" in decline.detail
    assert "'other'" in decline.detail


def test_initiator_in_quarantine_is_told_why_even_by_a_busy_node() -> None:
    busy = replace(TERMS, inbound=2)
    decline = judge(
        OPEN, busy, barred=False, unsettled=False, journal_full=False, quarantine="norm jump; for 20 s more"
    )
    assert decline == Decline(DeclineReason.QUARANTINED, "norm jump; for 20 s more")


def test_handshake_is_judged_before_quarantine() -> None:
    other = replace(OPEN, run_id=RunId("other"))
    decline = judge(other, TERMS, barred=False, unsettled=False, journal_full=False, quarantine="norm jump")
    assert decline is not None
    assert decline.reason is DeclineReason.RUN

"""Offenders are left alone by both roles, for as long as it says, and whoever is refused learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from adpsgd_node.core.exchange.frame import Abort, AbortReason, CodecName, Decline, DeclineReason
from adpsgd_node.core.exchange.guard import STEADY_LOOKS
from adpsgd_node.core.exchange.outcome import Outcome, Role
from adpsgd_node.core.exchange.quarantine import FIRST_S, FORGIVING_EXCHANGES, Offence, OffenceKind, Sentence
from adpsgd_node.daemon.discipline import Discipline
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.settings import ExchangeConfig
from adpsgd_node.ids import Address, NodeId
from adpsgd_node.net.memory import MemoryNetwork
from support.exchange_cluster import ClusterNode, ExchangeCluster
from support.virtual_clock import run_virtual

CHUNK_BYTES = 4096
ADA = NodeId("ada", 1)
BOB = NodeId("bob", 1)
JUMPED = Offence(OffenceKind.NORM_JUMP, 0, 100.0)


def _run(scenario: Coroutine[Any, Any, None]) -> None:
    run_virtual(scenario)


async def _pair() -> tuple[ExchangeCluster, ClusterNode, ClusterNode]:
    """Return two nodes that have exchanged for long enough to know each other's norms."""
    network = MemoryNetwork(1)
    config = ExchangeConfig(chunk_bytes=CHUNK_BYTES)
    cluster = ExchangeCluster(elements=3 * CHUNK_BYTES // 4, chunk_bytes=CHUNK_BYTES, config=config, seed=1)
    one, two = [await cluster.add(name, network.transport(Address(f"{name}:1"))) for name in ("one", "two")]
    for _ in range(STEADY_LOOKS):
        assert (await one.engine.initiate(two.id, two.address, CodecName.FP32)).outcome is Outcome.COMPLETE
    return cluster, one, two


@pytest.mark.parametrize("role", Role)
def test_swollen_peer_is_refused_in_either_role_and_may_come_back_when_its_time_is_over(role: Role) -> None:
    async def scenario() -> None:
        cluster, honest, swollen = await _pair()
        before = honest.view()
        swollen.swell(100.0)
        initiator, responder = (honest, swollen) if role is Role.INITIATOR else (swollen, honest)
        report = await initiator.engine.initiate(responder.id, responder.address, CodecName.FP32)
        assert report.outcome is Outcome.PARTIAL
        assert abs(honest.view() - before).max() == 0, "nothing of it was applied"
        assert cluster.drift() <= 1e-6

        (sentence,) = honest.sentences
        assert (sentence.peer, sentence.seconds) == (swollen.id, FIRST_S)
        assert "norm jump" in honest.engine.quarantine_of(swollen.id)
        assert honest.engine.quarantined == 1
        assert not honest.engine.may_exchange_with(swollen.id)
        assert honest.engine.apart_from(swollen.id)

        report = await swollen.engine.initiate(honest.id, honest.address, CodecName.FP32)
        assert report.outcome is Outcome.REFUSED
        assert report.decline is not None
        assert report.decline.reason is DeclineReason.QUARANTINED
        assert "norm jump" in report.decline.detail
        assert swollen.engine.apart_from(honest.id)

        swollen.swell(0.01)
        await asyncio.sleep(FIRST_S + 0.1)
        assert honest.engine.quarantine_of(swollen.id) == ""
        report = await swollen.engine.initiate(honest.id, honest.address, CodecName.FP32)
        assert report.outcome is Outcome.COMPLETE
        assert not swollen.engine.apart_from(honest.id), "it is accepted again"
        await cluster.close()

    _run(scenario())


def test_offender_that_was_followed_by_another_boot_is_forgotten() -> None:
    async def scenario() -> None:
        cluster, honest, swollen = await _pair()
        swollen.swell(100.0)
        await honest.engine.initiate(swollen.id, swollen.address, CodecName.FP32)
        assert honest.engine.quarantine_of(swollen.id)
        honest.engine.peer_over(swollen.id)
        assert honest.engine.quarantine_of(swollen.id) == ""
        await cluster.close()

    _run(scenario())


def _report(peer: NodeId, role: Role = Role.INITIATOR, **fields: Any) -> ExchangeReport:
    return ExchangeReport(role=role, peer=peer, **{"outcome": Outcome.PARTIAL, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"abort": Abort(AbortReason.NORM_JUMP, 0)},
        {"abort": Abort(AbortReason.NON_FINITE_THEIRS, 0)},
        {"outcome": Outcome.REFUSED, "decline": Decline(DeclineReason.QUARANTINED, "norm jump; for 9 s more")},
    ],
    ids=["norm jump", "not finite", "quarantined"],
)
def test_node_that_several_peers_refuse_says_so_until_they_accept_it(fields: dict[str, Any]) -> None:
    discipline = Discipline(0.0, lambda sentence: None)
    discipline.ended(_report(ADA, **fields), 0.0)
    assert discipline.problem(0.0) == ""
    discipline.ended(_report(BOB, **fields), 1.0)
    assert "2 peers refuse what this node sends (ada, bob)" in discipline.problem(1.0)
    discipline.ended(_report(BOB, Role.RESPONDER, outcome=Outcome.COMPLETE), 2.0)
    assert discipline.problem(2.0) == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"abort": Abort(AbortReason.NON_FINITE_OWN, 0)},
        {"outcome": Outcome.DECLINED, "decline": Decline(DeclineReason.BUSY)},
        {"outcome": Outcome.BROKEN, "cause": "reset"},
        {"offence": JUMPED},
    ],
    ids=["their own fault", "busy", "broken", "refused by us"],
)
def test_other_ends_accuse_nobody_of_what_it_sent(fields: dict[str, Any]) -> None:
    discipline = Discipline(0.0, lambda sentence: None)
    for peer in (ADA, BOB):
        discipline.ended(_report(peer, **fields), 0.0)
    assert discipline.problem(0.0) == ""


def test_declines_that_this_node_gave_as_responder_accuse_it_of_nothing() -> None:
    discipline = Discipline(0.0, lambda sentence: None)
    decline = Decline(DeclineReason.QUARANTINED, "norm jump")
    for peer in (ADA, BOB):
        discipline.ended(_report(peer, Role.RESPONDER, outcome=Outcome.REFUSED, decline=decline), 0.0)
    assert discipline.problem(0.0) == ""


def test_each_sentence_is_told_once() -> None:
    told: list[Sentence] = []
    discipline = Discipline(0.0, told.append)
    discipline.ended(_report(ADA, offence=JUMPED), 0.0)
    discipline.ended(_report(ADA, Role.RESPONDER, offence=JUMPED), 1.0)
    assert [(sentence.peer, sentence.seconds) for sentence in told] == [(ADA, FIRST_S)]
    discipline.ended(_report(ADA, offence=JUMPED), FIRST_S)
    assert told[1].seconds == 2 * FIRST_S


def test_clean_exchanges_forgive() -> None:
    told: list[Sentence] = []
    discipline = Discipline(0.0, told.append)
    discipline.ended(_report(ADA, offence=JUMPED), 0.0)
    for _ in range(FORGIVING_EXCHANGES):
        discipline.ended(_report(ADA, outcome=Outcome.COMPLETE), FIRST_S)
    discipline.ended(_report(ADA, offence=JUMPED), FIRST_S)
    assert [sentence.offences for sentence in told] == [1, 1]


@pytest.mark.parametrize("clipping", Role)
def test_bound_of_either_side_holds_for_both(clipping: Role) -> None:
    async def scenario() -> None:
        network = MemoryNetwork(1)
        plain = ExchangeConfig(chunk_bytes=CHUNK_BYTES)
        clipped = ExchangeConfig(chunk_bytes=CHUNK_BYTES, clip_exchange=0.1)
        cluster = ExchangeCluster(elements=3 * CHUNK_BYTES // 4, chunk_bytes=CHUNK_BYTES, config=plain, seed=1)
        one, two = [
            await cluster.add(role.value, network.transport(Address(role.value)), clipped if role is clipping else None)
            for role in (Role.INITIATOR, Role.RESPONDER)
        ]
        before = [node.view() for node in (one, two)]
        assert (await one.engine.initiate(two.id, two.address, CodecName.FP32)).outcome is Outcome.COMPLETE
        for node, view in zip((one, two), before, strict=True):
            moved = np.linalg.norm(node.view() - view)
            assert 0 < moved < 0.1 * np.linalg.norm(view)
        assert cluster.drift() <= 1e-7
        await cluster.close()

    _run(scenario())

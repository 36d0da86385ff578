"""Mass conservation (invariants 1 and 2): nothing that happens between nodes changes the sum of all parameters."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adpsgd_node.core.exchange import journal
from adpsgd_node.core.exchange.frame import CodecName, DeclineReason
from adpsgd_node.core.exchange.journal import ExchangeKey
from adpsgd_node.core.exchange.outcome import Outcome, Role, SettleEnd
from adpsgd_node.core.exchange.quarantine import OffenceKind
from adpsgd_node.daemon.settings import ExchangeConfig
from adpsgd_node.ids import Address
from adpsgd_node.net.fault import LinkFault
from adpsgd_node.net.memory import MemoryNetwork
from support.exchange_cluster import ExchangeCluster
from support.virtual_clock import run_virtual

CHUNK_BYTES = 4096
SETTLE_TIMEOUT_S = 600.0
"""In virtual time."""


async def _faulty_run(
    *,
    seed: int,
    nodes: int,
    chunks: int,
    window: int,
    codec: CodecName,
    exchanges: int,
    fault: LinkFault,
    clip: float = 0.0,
    swell: bool = False,
) -> tuple[float, ExchangeCluster]:
    network = MemoryNetwork(seed)
    cluster = ExchangeCluster(
        elements=chunks * CHUNK_BYTES // 4 - 5,
        chunk_bytes=CHUNK_BYTES,
        config=ExchangeConfig(window=window, chunk_bytes=CHUNK_BYTES, clip_exchange=clip),
        seed=seed,
    )
    for number in range(nodes):
        await cluster.add(f"n{number}", network.transport(Address(f"n{number}:1")))
    network.set_fault(fault)
    await cluster.run(exchanges, codec=codec)
    if swell:
        cluster.nodes[0].swell(100.0)
        await cluster.run(exchanges, codec=codec)
    network.set_fault(LinkFault())
    settled = await cluster.settle(SETTLE_TIMEOUT_S)
    assert settled, "an exchange is unsettled although every node lives and the network is whole"
    assert all(len(node.engine.journal) == 0 for node in cluster.nodes)
    drift = cluster.drift()
    assert cluster.kept(Role.INITIATOR) == cluster.kept(Role.RESPONDER), "the two sides of an exchange count alike"
    await cluster.close()
    return drift, cluster


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    nodes=st.integers(2, 5),
    chunks=st.integers(1, 9),
    window=st.integers(1, 8),
    codec=st.sampled_from(CodecName),
    delay_s=st.floats(0.0, 0.2),
    loss=st.floats(0.0, 0.4),
    reset=st.floats(0.0, 0.15),
    clip=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    swell=st.booleans(),
)
def test_sum_of_parameters_equals_ledger_after_resets_loss_reordering_steps_clipping_and_refusals(
    seed: int,
    nodes: int,
    chunks: int,
    window: int,
    codec: CodecName,
    delay_s: float,
    loss: float,
    reset: float,
    clip: float,
    swell: bool,
) -> None:
    fault = LinkFault(delay_max_s=delay_s, call_loss=loss, stream_reset=reset)
    drift, _ = run_virtual(
        _faulty_run(
            seed=seed,
            nodes=nodes,
            chunks=chunks,
            window=window,
            codec=codec,
            exchanges=12,
            fault=fault,
            clip=clip,
            swell=swell,
        )
    )
    assert drift <= 1e-6


def test_node_that_swells_is_refused_by_all_in_both_roles_and_leaves_no_trace() -> None:
    refusers: Counter[Role] = Counter()
    for seed in range(5):
        drift, cluster = run_virtual(
            _faulty_run(
                seed=seed,
                nodes=4,
                chunks=3,
                window=2,
                codec=CodecName.FP32,
                exchanges=12,
                fault=LinkFault(delay_max_s=0.01),
                swell=True,
            )
        )
        assert drift <= 1e-6
        swollen, *others = cluster.nodes
        for node in others:
            (sentence,) = node.sentences
            assert sentence.peer == swollen.id
            assert sentence.offence.kind is OffenceKind.NORM_JUMP
            assert abs(node.view()).max() < 10, "values were drawn with a deviation of 1"
        assert not swollen.sentences
        assert abs(swollen.view()).max() > 100
        refusers.update(r.role for node in others for r in node.reports if r.offence is not None)
        told = [report.decline.reason for report in swollen.reports if report.decline is not None]
        assert DeclineReason.QUARANTINED in told
    assert refusers[Role.INITIATOR] > 0
    assert refusers[Role.RESPONDER] > 0


def test_initiator_of_an_evicted_exchange_is_told_and_all_others_count_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_OPEN_ENTRIES", 1)

    async def scenario() -> None:
        network = MemoryNetwork(5)
        cluster = ExchangeCluster(
            elements=CHUNK_BYTES * 2, chunk_bytes=CHUNK_BYTES, config=ExchangeConfig(chunk_bytes=CHUNK_BYTES), seed=5
        )
        one, two, three = [await cluster.add(f"n{n}", network.transport(Address(f"n{n}:1"))) for n in range(3)]
        network.set_fault(LinkFault(delay_max_s=0.01, reset_at=7, call_loss=1.0))
        report = await one.engine.initiate(two.id, two.address, CodecName.FP32)
        assert report.outcome is Outcome.BROKEN
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while two.engine.inbound:
                await asyncio.sleep(0.01)  # between two looks
        network.set_fault(LinkFault())
        cluster.gone.add(one.id)
        report = await three.engine.initiate(two.id, two.address, CodecName.FP32)
        assert report.outcome is Outcome.COMPLETE, "the dead initiator's entry made room"
        cluster.gone.clear()  # it was only cut off, and asks after all
        assert await cluster.settle(SETTLE_TIMEOUT_S)
        assert one.settled == {SettleEnd.EVICTED: 1}
        assert two.settled == {SettleEnd.EVICTED: 1}
        initiated, responded = cluster.kept(Role.INITIATOR), cluster.kept(Role.RESPONDER)
        evicted = ExchangeKey(one.id, 1)
        assert initiated.pop(evicted, 0) < responded.pop(evicted), "what it merged and could not revert any more"
        assert initiated == responded
        assert sum(initiated.values()) == 8
        await cluster.close()

    run_virtual(scenario())


def test_streams_cut_at_each_chunk_are_settled_without_a_trace() -> None:
    for cut in range(12):
        drift, cluster = run_virtual(
            _faulty_run(
                seed=cut,
                nodes=3,
                chunks=8,
                window=4,
                codec=CodecName.FP32,
                exchanges=6,
                fault=LinkFault(delay_max_s=0.01, reset_at=cut),
            )
        )
        assert drift <= 1e-6, f"cut at message {cut}"
        if 1 <= cut < 8:  # cut 0 is Open itself: nothing was sent
            assert cluster.outcomes()[Outcome.BROKEN] > 0


def test_settle_that_overtakes_its_stream_bars_what_comes_late() -> None:
    """A slow stream and fast calls: Settle arrives while chunks of the same exchange are still under way."""

    async def scenario() -> float:
        network = MemoryNetwork(7)
        cluster = ExchangeCluster(
            elements=CHUNK_BYTES * 4, chunk_bytes=CHUNK_BYTES, config=ExchangeConfig(chunk_bytes=CHUNK_BYTES), seed=7
        )
        one = await cluster.add("one", network.transport(Address("one:1")))
        two = await cluster.add("two", network.transport(Address("two:1")))
        network.set_fault(LinkFault(delay_min_s=0.0, delay_max_s=2.0))
        for _ in range(8):
            exchange = asyncio.create_task(one.engine.initiate(two.id, two.address, CodecName.FP32))
            await asyncio.sleep(cluster.rng.uniform(0.5, 6.0))
            one.engine.peer_dead(two.id)  # breaks the initiator's end only
            await exchange
            assert await one.engine._settling.drained(SETTLE_TIMEOUT_S, lambda: True)
        assert await cluster.settle(SETTLE_TIMEOUT_S)
        drift = cluster.drift()
        await cluster.close()
        return drift

    assert run_virtual(scenario()) <= 1e-6


def test_exchanges_without_steps_bring_all_nodes_to_their_mean() -> None:
    async def scenario() -> tuple[float, float]:
        network = MemoryNetwork(3)
        cluster = ExchangeCluster(
            elements=3000, chunk_bytes=CHUNK_BYTES, config=ExchangeConfig(chunk_bytes=CHUNK_BYTES), seed=3
        )
        for number in range(5):
            await cluster.add(f"n{number}", network.transport(Address(f"n{number}:1")))
        mean = sum(node.ledger for node in cluster.nodes) / 5
        await cluster.run(60, codec=CodecName.FP32, step_every=0)
        worst = max(float(abs(node.view() - mean).max()) for node in cluster.nodes)
        drift = cluster.drift()
        await cluster.close()
        return worst, drift

    worst, drift = run_virtual(scenario())
    assert worst < 1e-5
    assert drift < 1e-6

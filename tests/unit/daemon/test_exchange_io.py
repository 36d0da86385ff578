"""What becomes of an exchange in mid-flight when membership has news of its peer."""

from __future__ import annotations

import asyncio

from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.exchange.journal import ExchangeKey
from adpsgd_node.core.exchange.outcome import Outcome, Role, SettleEnd
from adpsgd_node.core.exchange.retry import DEAD_LIMIT_S
from adpsgd_node.daemon.settings import ExchangeConfig
from adpsgd_node.ids import Address
from adpsgd_node.net.memory import LinkFault, MemoryNetwork
from support.exchange_cluster import ClusterNode, ExchangeCluster
from support.virtual_clock import run_virtual

CHUNK_BYTES = 4096
CHUNKS = 40
DELAY_S = 0.1


async def _pair() -> tuple[ExchangeCluster, ClusterNode, ClusterNode]:
    """Return two nodes so far apart that an exchange takes several round trips."""
    network = MemoryNetwork(1)
    network.set_fault(LinkFault(delay_min_s=DELAY_S, delay_max_s=DELAY_S))
    config = ExchangeConfig(chunk_bytes=CHUNK_BYTES)
    cluster = ExchangeCluster(elements=CHUNKS * CHUNK_BYTES // 4, chunk_bytes=CHUNK_BYTES, config=config, seed=1)
    one, two = [await cluster.add(name, network.transport(Address(f"{name}:1"))) for name in ("one", "two")]
    return cluster, one, two


async def _cut_off_in_mid_exchange() -> tuple[ExchangeCluster, ClusterNode, ClusterNode]:
    """Return two nodes of which the first holds the second dead, in the middle of an exchange that it started."""
    cluster, one, two = await _pair()
    running = asyncio.create_task(one.engine.initiate(two.id, two.address, CodecName.FP32))
    await asyncio.sleep(6 * DELAY_S)
    cluster.gone.add(two.id)
    one.engine.peer_dead(two.id)
    assert (await running).outcome is Outcome.BROKEN
    return cluster, one, two


def test_exchange_that_breaks_with_a_peer_whose_boot_is_over_is_abandoned_and_not_settled_for_ever() -> None:
    async def scenario() -> None:
        cluster, one, two = await _pair()
        running = asyncio.create_task(one.engine.initiate(two.id, two.address, CodecName.FP32))
        await asyncio.sleep(6 * DELAY_S)
        assert one.plane.inbox.any(), "it is in the middle"
        cluster.gone.add(two.id)
        one.engine.peer_over(two.id)
        assert (await running).outcome is Outcome.BROKEN
        assert one.engine.unsettled == 0
        assert one.settled == {SettleEnd.ABANDONED: 1}
        await cluster.close()

    run_virtual(scenario())


def test_exchange_that_breaks_with_a_peer_held_dead_waits_for_it() -> None:
    async def scenario() -> None:
        cluster, one, _ = await _cut_off_in_mid_exchange()
        assert one.engine.unsettled == 1
        cluster.gone.clear()
        assert await cluster.settle(60.0)
        assert one.settled == {SettleEnd.SETTLED: 1}
        assert cluster.drift() <= 1e-6
        await cluster.close()

    run_virtual(scenario())


def test_initiator_that_gave_settling_up_is_not_turned_away_for_ever() -> None:
    async def scenario() -> None:
        cluster, one, two = await _cut_off_in_mid_exchange()
        await asyncio.sleep(DEAD_LIMIT_S + 10)
        assert one.settled == {SettleEnd.ABANDONED: 1}
        assert two.engine.unsettled == 1
        cluster.gone.clear()
        assert (await one.engine.initiate(two.id, two.address, CodecName.FP32)).outcome is Outcome.COMPLETE
        assert two.settled == {SettleEnd.EVICTED: 1}
        assert two.engine.unsettled == 0
        initiated, responded = cluster.kept(Role.INITIATOR), cluster.kept(Role.RESPONDER)
        assert initiated[ExchangeKey(one.id, 2)] == responded[ExchangeKey(one.id, 2)] == CHUNKS
        await cluster.close()

    run_virtual(scenario())

"""A node that drains waits for what the others still owe it, but not for those that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from adpsgd_node.core.exchange.frame import CodecName, DeclineReason
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.daemon.settings import ExchangeConfig
from adpsgd_node.ids import Address
from adpsgd_node.net.fault import LinkFault
from adpsgd_node.net.memory import MemoryNetwork
from support.exchange_cluster import ClusterNode, ExchangeCluster
from support.virtual_clock import run_virtual

CHUNK_BYTES = 4096

Scenario = Callable[[MemoryNetwork, ExchangeCluster, ClusterNode, ClusterNode], Awaitable[None]]


def run(scenario: Scenario) -> None:
    """Play a scenario with two nodes, of which the first has broken an exchange with the second and cannot settle."""

    async def play() -> None:
        network = MemoryNetwork(5)
        cluster = ExchangeCluster(
            elements=CHUNK_BYTES * 2, chunk_bytes=CHUNK_BYTES, config=ExchangeConfig(chunk_bytes=CHUNK_BYTES), seed=5
        )
        one, two = [await cluster.add(f"n{n}", network.transport(Address(f"n{n}:1"))) for n in range(2)]
        network.set_fault(LinkFault(delay_max_s=0.01, reset_at=7, call_loss=1.0))
        report = await one.engine.initiate(two.id, two.address, CodecName.FP32)
        assert report.outcome is Outcome.BROKEN
        assert report.moved
        try:
            await scenario(network, cluster, one, two)
        finally:
            await cluster.close()

    run_virtual(play())


def test_a_responder_waits_until_its_initiator_has_said_what_it_applied() -> None:
    async def scenario(network: MemoryNetwork, cluster: ExchangeCluster, one: ClusterNode, two: ClusterNode) -> None:
        assert not await two.engine.drain(20.0), "the initiator could not settle yet"
        assert cluster.drift() > 1e-6, "what is applied on one side only would stay so, were it to leave now"
        network.set_fault(LinkFault())
        assert await two.engine.drain(20.0)
        assert cluster.drift() < 1e-6

    run(scenario)


def test_nobody_waits_for_one_that_is_gone() -> None:
    async def scenario(network: MemoryNetwork, cluster: ExchangeCluster, one: ClusterNode, two: ClusterNode) -> None:
        cluster.gone.update((one.id, two.id))
        begun = asyncio.get_running_loop().time()
        assert await one.engine.drain(1000.0)
        assert await two.engine.drain(1000.0)
        assert asyncio.get_running_loop().time() - begun < 100.0

    run(scenario)


def test_one_that_drains_declines_but_may_still_initiate() -> None:
    async def scenario(network: MemoryNetwork, cluster: ExchangeCluster, one: ClusterNode, two: ClusterNode) -> None:
        network.set_fault(LinkFault())
        assert await cluster.settle(20.0)
        one.engine.stopping = False
        assert (two.engine.initiating, two.engine.running) == (False, 0)
        declined = await one.engine.initiate(two.id, two.address, CodecName.FP32)
        assert declined.decline is not None
        assert declined.decline.reason is DeclineReason.STOPPING
        last = await two.engine.initiate(one.id, one.address, CodecName.FP32)
        assert last.outcome is Outcome.COMPLETE

    run(scenario)

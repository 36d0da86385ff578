"""The recorder attributes every delta to its exchange, notices one that belongs to none, and finds tasks that hang."""

from __future__ import annotations

import asyncio
import random

import numpy as np

from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.daemon.settings import ExchangeConfig
from adpsgd_node.ids import Address, NodeId
from adpsgd_node.net.memory import MemoryNetwork
from chaos.census import OLD_S, Census
from chaos.ledger import Ledger, pair_drift
from chaos.recorder import Recorder, recording
from support.cutting_transport import CuttingTransport
from support.exchange_cluster import ExchangeCluster
from support.virtual_clock import run_virtual

CONFIG = ExchangeConfig(chunk_bytes=4096, window=2)


async def exchanging(recorders: dict[NodeId, Recorder]) -> ExchangeCluster:
    """Have three nodes exchange over streams that break, until all is settled."""
    network, rng = MemoryNetwork(seed=3), random.Random(3)
    cluster = ExchangeCluster(elements=6000, chunk_bytes=4096, config=CONFIG, seed=3)
    for name in ("a", "b", "c"):
        transport = network.transport(Address(f"{name}:1"))
        await cluster.add(name, CuttingTransport(transport, rng, probability=0.4, span=12))
    await cluster.run(20, codec=CodecName.FP32)
    assert await cluster.settle(60.0)
    return cluster


def test_every_delta_of_exchanges_that_break_is_attributed_and_cancels() -> None:
    recorders: dict[NodeId, Recorder] = {}

    async def main() -> None:
        cluster = await exchanging(recorders)
        ledgers = {identity: recorder.ledger for identity, recorder in recorders.items()}
        assert sum(len(ledger.taken) for ledger in ledgers.values()) == 6
        assert all(np.linalg.norm(sums) > 0.1 for ledger in ledgers.values() for sums in ledger.taken.values())
        assert pair_drift(ledgers, 1.0)[0] < 1e-9
        for recorder in recorders.values():
            assert recorder.defects == []
            assert recorder.unsettled() == []
            assert recorder.ledger.unattributed() < 1e-9
            assert recorder.inbox_error() < 1e-4
            assert recorder.settled["settled"] + recorder.settled["unknown"] > 0
        await cluster.close()

    with recording(lambda recorder: recorders.update({recorder.identity: recorder}), lambda _: Ledger()):
        run_virtual(main())


def test_a_delta_of_no_exchange_is_a_defect() -> None:
    recorders: dict[NodeId, Recorder] = {}

    async def main() -> None:
        cluster = await exchanging(recorders)
        plane = cluster.nodes[0].plane
        start, stop = plane.layout.chunks[0]
        plane.add_to_inbox(0, np.ones(stop - start, np.float32))
        recorder = recorders[cluster.nodes[0].id]
        assert recorder.defects == ["chunk 0 of the inbox was changed outside of any exchange"]
        assert recorder.inbox_error() > 1
        await cluster.close()

    with recording(lambda recorder: recorders.update({recorder.identity: recorder}), lambda _: Ledger()):
        run_virtual(main())


def test_the_inbox_is_still_compared_after_a_rebase() -> None:
    recorders: dict[NodeId, Recorder] = {}

    async def main() -> None:
        cluster = await exchanging(recorders)
        plane, recorder = cluster.nodes[0].plane, recorders[cluster.nodes[0].id]
        for _ in range(3):  # the third one zeroes the face that the first had filled
            assert all(plane.rebase(chunk) for chunk in range(len(plane.layout.chunks)))
            cluster.nodes[0].fold.fold()
        assert not np.any(plane.inbox_faces[0])
        assert recorder.inbox_error() < 1e-4
        await cluster.close()

    with recording(lambda recorder: recorders.update({recorder.identity: recorder}), lambda _: Ledger()):
        run_virtual(main())


def test_an_old_task_hangs_unless_it_is_meant_to_last() -> None:
    async def main() -> None:
        census, loop = Census(), asyncio.get_running_loop()
        census.install(loop)
        tasks = [
            loop.create_task(asyncio.sleep(10 * OLD_S), name=name)
            for name in ("exchange with b", "settle exchange 3 with b#1", "supervise")
        ]
        await asyncio.sleep(OLD_S - 1)
        assert not [hung for hung in census.hung(loop) if "exchange" in hung]
        await asyncio.sleep(2)
        (hung,) = [hung for hung in census.hung(loop) if not hung.startswith("Task-")]
        assert hung.startswith("exchange with b (sleep), ")
        for task in tasks:
            task.cancel()

    run_virtual(main())


def test_a_task_that_only_the_end_has_cancelled_is_told_and_a_settling_counts_once_nothing_hurts() -> None:
    async def main() -> None:
        census, loop = Census(), asyncio.get_running_loop()
        census.install(loop)
        names = ("exchange with b", "settle exchange 1 with b", "loop lag")
        tasks = [asyncio.create_task(asyncio.sleep(1000.0), name=name) for name in names]
        await asyncio.sleep(OLD_S + 1.0)
        assert [hung for hung in census.hung(loop) if hung.endswith("(sleep), 76 s old")] == [
            "exchange with b (sleep), 76 s old"
        ]
        begun = {task for task in census.begun_s(loop) if task.endswith("(sleep)")}
        assert begun == {"exchange with b (sleep)", "settle exchange 1 with b (sleep)"}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert census.late() == ["exchange with b (sleep), ended 76 s old"]

    run_virtual(main())

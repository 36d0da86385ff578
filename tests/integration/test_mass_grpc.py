"""The mass ledger over real gRPC, with streams cut at random messages at both ends."""

from __future__ import annotations

import random

from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.daemon.settings import ExchangeConfig
from adpsgd_node.ids import Address
from adpsgd_node.net.grpc_transport import GrpcTransport
from support.cutting_transport import CuttingTransport
from support.exchange_cluster import ExchangeCluster

NODES = 8
EXCHANGES_EACH = 260
CHUNKS = 6
CHUNK_BYTES = 4096


async def test_mass_holds_over_grpc_when_streams_are_cut_at_random_chunks() -> None:
    rng = random.Random(2018)
    config = ExchangeConfig(chunk_bytes=CHUNK_BYTES, window=4, max_inbound=2)
    cluster = ExchangeCluster(elements=CHUNKS * CHUNK_BYTES // 4, chunk_bytes=CHUNK_BYTES, config=config, seed=2018)
    transports = [
        CuttingTransport(GrpcTransport(Address("127.0.0.1:0")), rng, probability=0.08, span=2 * CHUNKS + 4)
        for _ in range(NODES)
    ]
    for number, transport in enumerate(transports):
        await cluster.add(f"n{number}", transport)
    try:
        await cluster.run(EXCHANGES_EACH, codec=CodecName.FP32, step_every=5, pause_s=0.0)
        for transport in transports:
            transport.probability = 0.0
        assert await cluster.settle(30.0), "an exchange stays unsettled although every node lives"
        outcomes = cluster.outcomes()
        assert sum(outcomes.values()) >= 2000
        assert outcomes[Outcome.COMPLETE] > 500
        assert outcomes[Outcome.BROKEN] > 50
        assert sum(transport.cuts for transport in transports) > 100
        assert all(len(node.engine.journal) == 0 for node in cluster.nodes)
        assert cluster.drift() <= 1e-6
    finally:
        await cluster.close()

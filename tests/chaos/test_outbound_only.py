"""Nodes behind a firewall that lets nobody in train with the rest, and end with the same model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adpsgd_cli.demo.verdict import widest_distance
from adpsgd_node.core.membership.member import MemberState
from adpsgd_node.wire.admin import Status
from chaos.cluster import Cluster
from chaos.life import Life

NODES = 4
HIDDEN = (2, 3)
START_LIMIT_S = 120.0
EXCHANGES = 10
SAMPLES = 12_000
END_S = 10.0
"""Time in which the rest of the run is planned."""
END_LIMIT_S = 120.0
TOLERANCE = 1e-3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("namespaces"),
    pytest.mark.skipif(shutil.which("iptables") is None, reason="a firewall needs iptables, which is not installed"),
]


def exchanges_with_dialable(status: Status) -> bool:
    return status.exchanges_initiated >= EXCHANGES and all(
        entry.member.state is MemberState.ALIVE for entry in status.members
    )


async def test_nodes_behind_a_closed_inbound_path_train_with_the_rest_and_end_with_the_same_model(
    cluster_of: Callable[[int], Cluster],
) -> None:
    cluster = cluster_of(NODES)
    for host in HIDDEN:
        cluster.hosts.close_inbound(host)
    for host in range(NODES):
        cluster.start(host, options=[f"--samples={SAMPLES}", *["--outbound-only"] * (host in HIDDEN)])
    for life in cluster.current:
        await cluster.training(life, START_LIMIT_S)
    cluster.set_pace(0.0, 1.0, END_S)

    hidden = [cluster.current[host] for host in HIDDEN]
    for life in hidden:
        status = await cluster.wait_for(life, exchanges_with_dialable, END_LIMIT_S, "it exchanges with nobody")
        assert status.self_member.outbound_only
        assert status.exchanges_responded == 0, "somebody got through the firewall"
    for life in cluster.current:
        assert await cluster.ended(life, END_LIMIT_S) == 0, life.errors()
        assert "member is now dead" not in life.log.read_text()
    assert widest_distance([model_of(cluster, life) for life in cluster.current]) <= TOLERANCE


async def test_a_node_that_says_nothing_of_its_firewall_is_found_out(cluster_of: Callable[[int], Cluster]) -> None:
    """The counterpart: without `--outbound-only` the same path makes others hold the node dead, so it was closed."""
    cluster = cluster_of(NODES)
    cluster.hosts.close_inbound(HIDDEN[0])
    open_ones = [cluster.start(host) for host in range(2)]
    for life in open_ones:
        await cluster.training(life, START_LIMIT_S)
    cluster.start(HIDDEN[0])
    for life in open_ones:
        await cluster.wait_for(life, lambda s: holds_dead(s, cluster.names[HIDDEN[0]]), START_LIMIT_S, "it is not dead")


def holds_dead(status: Status, name: str) -> bool:
    return any(entry.member.name == name and entry.member.state is MemberState.DEAD for entry in status.members)


def model_of(cluster: Cluster, life: Life) -> Path:
    return cluster.disks[life.host].folder / "out" / "model.safetensors"

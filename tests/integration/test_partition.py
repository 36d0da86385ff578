"""Real nodes that are cut apart merge again by themselves, over connections that were lost in mid-flight."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack

import pytest

from adpsgd_node.core.membership.member import MemberState
from adpsgd_node.ids import Address
from support.node_process import NodeProcess, Nodes, trainer
from support.tcp_path import TcpPath


async def start_behind(path: TcpPath, nodes: Nodes, name: str, *seeds: str) -> NodeProcess:
    """Start a node that the others reach over `path` alone."""
    script = trainer("--steps-per-s=20")
    node = nodes.start(name, "--epochs=10000", f"--advertise={path.address}", seeds=seeds, script=script)
    await node.says("node is up")
    listen = re.search(r"node is up .* listen=(\S+)", node.text())
    assert listen is not None
    path.lead_to(Address(listen[1]))
    return node


@pytest.mark.slow
async def test_nodes_cut_apart_go_on_alone_and_merge_once_the_way_is_free(nodes: Nodes) -> None:
    async with AsyncExitStack() as stack:
        paths = [await stack.enter_async_context(TcpPath.to()) for _ in range(2)]
        first = await start_behind(paths[0], nodes, "n0")
        second = await start_behind(paths[1], nodes, "n1", paths[0].address)
        for node, other in ((first, "n1"), (second, "n0")):
            await node.wait_for(lambda s: s.exchanges_initiated > 0, "exchanges")
            await node.sees(other, MemberState.ALIVE)

        for path in paths:
            path.cut = True
        steps = {}
        for node, other in ((first, "n1"), (second, "n0")):
            status = await node.sees(other, MemberState.DEAD)
            steps[node.name] = status.step
        for node in (first, second):
            await node.wait_for(lambda s, node=node: s.step > steps[node.name] + 100, "training in its half")  # type: ignore[misc]

        exchanges = {}
        for path in paths:
            path.cut = False
        for node, other in ((first, "n1"), (second, "n0")):
            status = await node.sees(other, MemberState.ALIVE)
            exchanges[node.name] = status.exchanges_initiated
        for node in (first, second):
            met = exchanges[node.name]
            await node.wait_for(lambda s, met=met: s.exchanges_initiated > met, "exchanges after the heal")  # type: ignore[misc]

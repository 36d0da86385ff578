"""Nodes that nobody can dial train with the rest, from real processes."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adpsgd_node.checkpoint.model_file import read_tensors
from adpsgd_node.core.membership.member import MemberState
from adpsgd_node.wire.admin import Status
from support.node_process import NodeProcess, Nodes, relative_distance, trainer

TOLERANCE = 1e-3


class Closed:
    """An address that is to be left alone: whoever connects to it is counted."""

    def __init__(self) -> None:
        self.address = ""
        self.connections = 0

    def count(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()


@asynccontextmanager
async def closed() -> AsyncIterator[Closed]:
    trap = Closed()
    server = await asyncio.start_server(trap.count, "127.0.0.1", 0)
    trap.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield trap


def start_outbound_only(nodes: Nodes, name: str, advertise: str, seed: str, *options: str) -> NodeProcess:
    own = ["--outbound-only", f"--advertise={advertise}", *options]
    return nodes.start(name, *own, seeds=[seed], script=trainer("--steps-per-s=30"))


def neighbors(status: Status) -> set[str]:
    return {entry.member.name for entry in status.members if entry.neighbor}


@pytest.mark.slow
async def test_outbound_only_nodes_train_with_the_rest_and_end_with_the_same_model(nodes: Nodes) -> None:
    async with closed() as trap:
        options = ["--epochs=12"]
        dialable = await nodes.start_run("n0", "n1", options=options, script=["--steps-per-s=30"])
        seed = (await dialable[0].status()).self_member.address
        hidden = [start_outbound_only(nodes, name, trap.address, seed, *options) for name in ("o2", "o3")]
        group = [*dialable, *hidden]
        for node in hidden:
            status = await node.wait_for(lambda s: s.exchanges_initiated > 3, "exchanges that it starts itself")
            assert status.self_member.outbound_only
            assert node.events("joined")[0]["adopted"]
            await node.wait_for(lambda s: neighbors(s) == {"n0", "n1"}, "just the dialable ones beside it")
        seen = await dialable[1].wait_for(lambda s: s.exchanges_responded > 3, "exchanges that they start")
        assert {entry.member.name for entry in seen.members if entry.member.outbound_only} == {"o2", "o3"}

        last = {}
        for node in group:
            last[node.name] = await node.wait_for(lambda s: s.samples_total >= s.samples_target > 0, "the target")
        for node in group:
            assert await node.ended() == 0, node.text()
            assert node.events("finished")[0]["members"] == len(group), node.text()
            assert "do not agree" not in node.text()
            assert "member is now dead" not in node.text()

        models = [read_tensors(node.model)["weight"] for node in group]
        distances = [relative_distance(one, other) for one, other in itertools.combinations(models, 2)]
        assert max(distances) <= TOLERANCE
        assert [last[node.name].exchanges_responded for node in hidden] == [0, 0], "somebody called one of them"
        assert trap.connections == 0, "somebody dialed an outbound-only node"


@pytest.mark.slow
async def test_killed_outbound_only_node_is_found_dead_by_its_silence_and_comes_back(nodes: Nodes) -> None:
    async with closed() as trap:
        options = ["--epochs=10000"]
        first, second = await nodes.start_run("n0", "n1", options=options, script=["--steps-per-s=30"])
        seed = (await first.status()).self_member.address
        hidden = start_outbound_only(nodes, "o2", trap.address, seed, *options)
        await hidden.training()
        await second.sees("o2", MemberState.ALIVE)

        hidden.signal(signal.SIGKILL)
        for node in (first, second):
            await node.sees("o2", MemberState.DEAD)

        again = start_outbound_only(nodes, "o2", trap.address, seed, *options)
        await again.training()
        for node in (first, second):
            await node.sees("o2", MemberState.ALIVE)
        assert trap.connections == 0

"""The nodes of a world find each other over the in-memory network, and notice when one is missing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.daemon import rendezvous as module
from adpsgd_node.daemon.rendezvous import Rendezvous, trainer_address
from adpsgd_node.errors import ConfigError, JoinError, PeerLostError, RunMismatchError, TrainerError
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.net.memory import MemoryNetwork
from adpsgd_node.net.transport import Method
from adpsgd_node.plane.header import HEADER_BYTES, Header, TrainerState

RUN = RunId("test")


class Group:
    """Nodes that all see the same members."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(seed=1)
        self.members: dict[str, Member] = {}

    async def add(self, name: str, size: int, run: RunId = RUN) -> Rendezvous:
        address, node = Address(f"{name}:1"), NodeId(name, 1)
        transport = self.network.transport(address)
        rendezvous = Rendezvous(node, run, size, transport, lambda: list(self.members.values()))
        await transport.serve({Method.WORLD: rendezvous.answer}, {})
        self.members[name] = Member(node, address, 0, MemberState.ALIVE, Phase.TRAINING)
        return rendezvous

    def change(self, name: str, **fields: object) -> None:
        self.members[name] = replace(self.members[name], **fields)  # type: ignore[arg-type]


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    monkeypatch.setattr(module, "LARGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.005)
    return Group()


def own(number: int) -> Address:
    return Address(f"host{number}:{9000 + number}")


async def met(group: Group, *names: str) -> list[Rendezvous]:
    nodes = [await group.add(name, len(names)) for name in names]
    async with asyncio.timeout(10):
        await asyncio.gather(*(node.meet(own(number)) for number, node in enumerate(nodes)))
    return nodes


async def test_all_get_the_same_world_and_the_trainer_of_the_first_to_meet_at(group: Group) -> None:
    nodes = [await group.add(name, 3) for name in ("n1", "n0", "n2")]
    async with asyncio.timeout(10):
        places = await asyncio.gather(*(node.meet(own(number)) for number, node in enumerate(nodes)))
    assert [place.rank for place in places] == [1, 0, 2]
    assert {place.rendezvous for place in places} == {own(1)}
    assert {str(place.world) for place in places} == {"n0, n1, n2"}


async def test_one_alone_is_a_world_of_one(group: Group) -> None:
    place = await (await group.add("n0", 1)).meet(own(0))
    assert (place.rank, place.rendezvous) == (0, own(0))


async def test_two_of_three_wait_for_the_third(group: Group) -> None:
    nodes = [await group.add(name, 3) for name in ("n0", "n1")]
    waiting = [asyncio.create_task(node.meet(own(0))) for node in nodes]
    for _ in range(200):
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    third = await group.add("n2", 3)
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting, third.meet(own(2)))


@pytest.mark.parametrize("name", ["a-late", "z-late"])
async def test_whoever_comes_later_has_no_place_whatever_its_name(group: Group, name: str) -> None:
    await met(group, "n0", "n1")
    late = await group.add(name, 2)
    async with asyncio.timeout(10):
        with pytest.raises(JoinError, match=r"all its 2 nodes \(n0, n1\)"):
            await late.meet(own(9))


async def test_nodes_that_were_told_different_sizes_say_so(group: Group) -> None:
    await group.add("n0", 2)
    with pytest.raises(ConfigError, match="n0 runs with --world-size 2, this node with .* --world-size 3"):
        await (await group.add("n1", 3)).meet(own(1))


async def test_a_node_of_another_algorithm_is_named(group: Group) -> None:
    await group.add("n0", 0)
    with pytest.raises(ConfigError, match="n0 runs with another --algorithm"):
        await (await group.add("n1", 3)).meet(own(1))


async def test_a_node_of_another_run_is_refused(group: Group) -> None:
    await group.add("n0", 2, RunId("other"))
    with pytest.raises(RunMismatchError, match="run 'other' expected, 'test' came"):
        await (await group.add("n1", 2)).meet(own(1))


# Missing


def header(state: TrainerState = TrainerState.STEPPING, waiting: int = 1) -> Header:
    made = Header(np.zeros(HEADER_BYTES, np.uint8))
    made.trainer_state, made.waiting, made.step = state, waiting, 7
    return made


@pytest.mark.parametrize("state", [MemberState.DEAD, MemberState.LEFT])
async def test_a_trainer_that_waits_for_a_lost_node_waits_in_vain(group: Group, state: MemberState) -> None:
    node, *_ = await met(group, "n0", "n1", "n2")
    group.change("n2", state=state)
    async with asyncio.timeout(10):
        error = await node.vain(header())
    assert isinstance(error, PeerLostError)
    assert str(error).startswith("allreduce cannot go on without n2: start all nodes again")


async def test_a_trainer_that_does_not_wait_is_left_alone_though_a_node_is_lost(group: Group) -> None:
    node, *_ = await met(group, "n0", "n1")
    group.change("n1", state=MemberState.LEFT)
    busy = header(waiting=0)
    watching = asyncio.create_task(node.vain(busy))
    await asyncio.sleep(20 * module.LOOK_EVERY_S)
    assert not watching.done()
    busy.waiting = 1
    async with asyncio.timeout(10):
        assert isinstance(await watching, PeerLostError)


async def test_a_trainer_that_waits_long_for_one_that_has_ended_waits_in_vain(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOPPED_LIMIT_S", 0.05)
    node, *_ = await met(group, "n0", "n1")
    group.change("n1", phase=Phase.SETTLING)
    async with asyncio.timeout(10):
        error = await node.vain(header())
    assert isinstance(error, TrainerError)
    assert "n1 has ended the training while this node waits in its step 8" in str(error)


@pytest.mark.parametrize("step", [0, 7])
async def test_a_script_that_trains_no_more_has_the_others_wait_in_vain(
    group: Group, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(module, "DETACHED_LIMIT_S" if step else "BEGIN_LIMIT_S", 0.05)
    (node,) = await met(group, "n0")
    page = header(waiting=0)
    watching = asyncio.create_task(node.vain(page))
    await asyncio.sleep(20 * module.LOOK_EVERY_S)
    assert not watching.done()
    page.trainer_state, page.step = TrainerState.NONE, step
    async with asyncio.timeout(10):
        assert isinstance(await watching, TrainerError)


def test_a_trainer_is_reached_at_its_nodes_host() -> None:
    assert trainer_address(Address("[::1]:7400"), 5) == "[::1]:5"
    assert trainer_address(Address("host:7400"), 5) == "host:5"

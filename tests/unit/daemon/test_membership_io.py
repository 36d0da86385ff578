"""What the daemon does for membership beyond the machine: packets for those that nobody can dial, and look-ups."""

from __future__ import annotations

import asyncio
import random

from adpsgd_node.core.membership import Identity, Member, MembershipConfig, MemberState, Packet, Phase, Swim
from adpsgd_node.core.membership.packet import Ack, Ping
from adpsgd_node.daemon.membership_io import MembershipHooks, MembershipIo
from adpsgd_node.daemon.resolve import SeedResolver
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId
from adpsgd_node.net.memory import MemoryNetwork
from adpsgd_node.net.transport import Method
from adpsgd_node.seed import Seed, parse_seed
from adpsgd_node.wire.membership import decode_deliver_response, encode_packet

PATIENCE_S = 20.0
RUN = RunId("run")
QUICK = MembershipConfig(
    probe_interval_s=0.02,
    ack_timeout_s=0.1,
    indirect_timeout_s=0.1,
    minimum_suspicion_s=0.1,
    suspicion_max_factor=1.0,
    sync_interval_s=0.1,
)


def fault(name: str, error: BaseException) -> None:
    raise AssertionError(name) from error


class Station:
    """One node's membership on the in-memory network."""

    def __init__(
        self, network: MemoryNetwork, name: str, *seeds: str, outbound_only: bool = False, lookup: object = None
    ) -> None:
        self.address = Address(f"{name}:1")
        self.id = NodeId(name, 1)
        self.tasks = Tasks(fault)
        self.transport = network.transport(self.address)
        resolver = SeedResolver([parse_seed(seed) for seed in seeds], random.Random(1), lookup)  # type: ignore[arg-type]
        swim = Swim(
            Identity(id=self.id, address=self.address, run_id=RUN, outbound_only=outbound_only),
            QUICK,
            random.Random(name),
            seeds=resolver.plain,
            resolving=resolver.needed,
        )
        hooks = MembershipHooks(
            changed=lambda member, before: self.changed.set(),
            joined=lambda: None,
            progressed=lambda: None,
            rejected=lambda reason: None,
            fatal=lambda error: fault("fatal", error),
            outnumbered=lambda other: None,
        )
        self.changed = asyncio.Event()
        self.io = MembershipIo(swim, self.transport, self.tasks, hooks, 0.0, resolver)

    async def start(self) -> None:
        await self.transport.serve({Method.DELIVER: self.io.deliver, Method.JOIN: self.io.join}, {})
        self.io.start()

    async def sees(self, *names: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while [member.name for member in self.io.swim.live()] != list(names):
                self.changed.clear()
                await self.changed.wait()

    async def stop(self) -> None:
        self.io.close()
        await self.tasks.cancel()
        await self.transport.close(grace_s=0.0)


def packet(name: str, *, outbound_only: bool) -> bytes:
    source = Member(NodeId(name, 1), Address(f"{name}:1"), 0, MemberState.ALIVE, Phase.IDLE, outbound_only)
    ping = Ping(7, NodeId("a", 1))
    return encode_packet(Packet(protocol=PROTOCOL_VERSION, run_id=RUN, source=source, body=ping))


async def test_caller_that_nobody_can_dial_hears_its_ack_in_the_answer_and_others_are_called() -> None:
    a = Station(MemoryNetwork(), "a")
    await a.start()
    [answer] = decode_deliver_response(await a.io.deliver(packet("hidden", outbound_only=True)))
    assert answer.body == Ack(7)
    assert len(a.tasks) == 0, "it was called all the same"
    assert await a.io.deliver(packet("open", outbound_only=False)) == b""
    assert len(a.tasks) == 1
    await a.stop()


async def test_node_that_nobody_can_dial_takes_part_by_its_own_calls_alone() -> None:
    network = MemoryNetwork()
    a, b = Station(network, "a"), Station(network, "b", "a:1")
    hidden = Station(network, "hidden", "a:1", outbound_only=True)
    calls: list[bytes] = []

    async def count(data: bytes) -> bytes:
        calls.append(data)
        return b""

    await a.start()
    await b.start()
    await hidden.transport.serve({Method.DELIVER: count, Method.JOIN: count}, {})
    hidden.io.start()
    for station in (a, b, hidden):
        await station.sees("a", "b", "hidden")
    await b.stop()
    await hidden.sees("a", "hidden")
    assert calls == []
    for station in (a, hidden):
        await station.stop()


async def test_leaving_ends_when_one_that_nobody_can_dial_has_called_and_heard_it() -> None:
    network = MemoryNetwork()
    a, hidden = Station(network, "a"), Station(network, "hidden", "a:1", outbound_only=True)
    await a.start()
    hidden.io.start()
    for station in (a, hidden):
        await station.sees("a", "hidden")
    await a.io.part(PATIENCE_S, PATIENCE_S)
    assert a.io.swim.untold == 0
    await hidden.sees("hidden")
    [gone] = [member for member in hidden.io.swim.members() if member.name == "a"]
    assert gone.state is MemberState.LEFT
    for station in (a, hidden):
        await station.stop()


async def test_leaving_does_not_wait_for_ever_for_one_that_does_not_call() -> None:
    a = Station(MemoryNetwork(), "a")
    await a.start()
    await a.io.deliver(packet("hidden", outbound_only=True))
    await a.io.part(PATIENCE_S, 0.05)
    assert a.io.swim.untold == 1
    await a.stop()


async def test_seeds_that_are_names_are_looked_up_until_one_leads_to_the_run() -> None:
    network = MemoryNetwork()
    answers: list[list[Address]] = [[], [], [Address("a:1")]]
    asked = []

    async def lookup(seed: Seed) -> list[Address]:
        asked.append(seed.text)
        return answers.pop(0) if answers else [Address("a:1")]

    a = Station(network, "a")
    b = Station(network, "b", "dns+a://somewhere:1", lookup=lookup)
    await a.start()
    await b.start()
    await b.sees("a", "b")
    assert len(asked) >= 3
    for station in (a, b):
        await station.stop()

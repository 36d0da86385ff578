"""Where seeds lead: names with many addresses and SRV records, asked of real resolvers on this machine."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from adpsgd_node.daemon import resolve
from adpsgd_node.daemon.resolve import SeedResolver, look_up
from adpsgd_node.errors import UnreachableError
from adpsgd_node.ids import Address
from adpsgd_node.seed import MAX_SEEDS, Seed, parse_seed

PLAIN = parse_seed("a:1")
MANY = parse_seed("dns+a://many:7")
SERVICE = parse_seed("dns+srv://_gossip._tcp.x.example.")


class Script:
    """Look-ups that answer as told."""

    def __init__(self) -> None:
        self.answers: dict[Seed, list[str] | str | None] = {}
        """Addresses; the reason of a failure; None: no answer until `release`."""
        self.asked: list[Seed] = []
        self.release = asyncio.Event()

    async def __call__(self, seed: Seed) -> list[Address]:
        self.asked.append(seed)
        answer = self.answers[seed]
        if answer is None:
            await self.release.wait()
            answer = self.answers[seed]
        if not isinstance(answer, list):
            raise UnreachableError(str(answer))
        return [Address(text) for text in answer]


def resolver(script: Script, *seeds: Seed) -> SeedResolver:
    return SeedResolver(seeds, random.Random(1), script)


async def test_plain_seeds_alone_need_no_look_up() -> None:
    alone = resolver(Script(), PLAIN)
    assert not alone.needed
    assert alone.plain == ("a:1",)
    assert await alone.resolve() == (("a:1",), ())


async def test_addresses_of_all_seeds_are_given_and_those_that_lead_nowhere_named() -> None:
    script = Script()
    script.answers = {MANY: ["10.0.0.1:7", "10.0.0.2:7"], SERVICE: "no such name"}
    addresses, nowhere = await resolver(script, PLAIN, MANY, SERVICE).resolve()
    assert addresses[0] == "a:1"
    assert set(addresses) == {"a:1", "10.0.0.1:7", "10.0.0.2:7"}
    assert nowhere == (f"{SERVICE}: no such name",)


@pytest.mark.parametrize("worse", [[], "no such name", "no answer"])
async def test_answer_that_says_nothing_takes_no_address_away(worse: list[str] | str) -> None:
    script = Script()
    script.answers = {MANY: ["10.0.0.1:7"]}
    names = resolver(script, MANY)
    await names.resolve()
    script.answers[MANY] = worse
    assert await names.resolve() == (("10.0.0.1:7",), ())
    script.answers[MANY] = ["10.0.0.9:7"]
    assert await names.resolve() == (("10.0.0.9:7",), ())


async def test_a_seed_that_is_given_twice_is_looked_up_once() -> None:
    script = Script()
    script.answers = {MANY: ["10.0.0.1:7"]}
    assert await resolver(script, MANY, MANY).resolve() == (("10.0.0.1:7",), ())
    assert script.asked == [MANY]


async def test_one_name_with_a_thousand_addresses_leaves_room_for_the_others_and_keeps_its_choice() -> None:
    script = Script()
    everyone = [f"10.0.{number // 256}.{number % 256}:7" for number in range(1000)]
    script.answers = {MANY: everyone, SERVICE: ["s:1"]}
    names = resolver(script, MANY, PLAIN, SERVICE)
    first, _ = await names.resolve()
    assert len(first) == MAX_SEEDS
    assert {"a:1", "s:1"} < set(first)
    random.Random(2).shuffle(everyone)
    script.answers[MANY] = everyone[500:]
    second, _ = await names.resolve()
    kept = {address for address in first if address in everyone[500:]}
    assert kept <= set(second)
    assert set(second) <= {"a:1", "s:1", *everyone[500:]}


async def test_slow_look_up_is_not_asked_twice_and_its_answer_counts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "LOOKUP_TIMEOUT_S", 0.01)
    script = Script()
    script.answers = {MANY: None}
    names = resolver(script, MANY)
    for _ in range(3):
        addresses, nowhere = await names.resolve()
        assert addresses == ()
        assert "no answer" in nowhere[0]
    assert script.asked == [MANY]
    script.answers[MANY] = ["10.0.0.1:7"]
    script.release.set()
    assert await names.resolve() == (("10.0.0.1:7",), ())


async def test_all_addresses_of_a_name_are_those_the_system_knows() -> None:
    wanted = {entry[4][0] for entry in socket.getaddrinfo("localhost", 7, type=socket.SOCK_STREAM)}
    found = await look_up(parse_seed("dns+a://localhost:7"))
    assert set(found) == {f"[{address}]:7" if ":" in str(address) else f"{address}:7" for address in wanted}


async def test_name_that_nobody_knows_is_a_failure_with_a_reason() -> None:
    with pytest.raises(UnreachableError, match=r"\w"):
        await look_up(parse_seed("dns+a://nobody.invalid:7"))


async def test_srv_record_gives_targets_and_ports_the_preferred_first() -> None:
    records = ["20 0 7402 third.example.", "10 1 7401 second.example.", "10 9 7400 first.example."]
    async with name_server({"_gossip._tcp.x.example.": records}) as server:
        found = await look_up(SERVICE, server)
    assert found == ["first.example:7400", "second.example:7401", "third.example:7402"]


async def test_srv_record_that_offers_no_service_is_an_empty_answer() -> None:
    async with name_server({"_gossip._tcp.x.example.": ["0 0 0 ."]}) as server:
        assert await look_up(SERVICE, server) == []


@pytest.mark.parametrize(("zone", "why"), [({}, "no such name"), ({"_gossip._tcp.x.example.": []}, "no SRV record")])
async def test_missing_srv_record_is_a_failure_with_its_reason(zone: dict[str, list[str]], why: str) -> None:
    async with name_server(zone) as server:
        with pytest.raises(UnreachableError, match=why):
            await look_up(SERVICE, server)


async def test_name_server_that_answers_garbage_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "LOOKUP_TIMEOUT_S", 0.3)
    async with name_server(None) as server:
        with pytest.raises(UnreachableError):
            await look_up(SERVICE, server)


class NameServer(asyncio.DatagramProtocol):
    """Answers for one zone; without one, with bytes that are no answer."""

    def __init__(self, zone: dict[str, list[str]] | None) -> None:
        self.zone = zone
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(b"garbage" if self.zone is None else self._answer(data, self.zone), addr)

    @staticmethod
    def _answer(data: bytes, zone: dict[str, list[str]]) -> bytes:
        query = dns.message.from_wire(data)
        [question] = query.question
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        records: Sequence[str] | None = zone.get(question.name.to_text())
        if records is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif records:
            response.answer.append(dns.rrset.from_text(question.name, 5, "IN", "SRV", *records))
        return response.to_wire()


@asynccontextmanager
async def name_server(zone: dict[str, list[str]] | None) -> AsyncIterator[tuple[str, int]]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(zone), local_addr=("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")
    finally:
        transport.close()

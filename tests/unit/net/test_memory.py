"""What the in-memory network does on purpose; what every transport does is in the conformance suite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from adpsgd_node.errors import DeadlineError, StreamBrokenError, UnreachableError
from adpsgd_node.ids import Address
from adpsgd_node.net.fault import LinkFault
from adpsgd_node.net.memory import MemoryNetwork
from adpsgd_node.net.memory_transport import MemoryTransport
from adpsgd_node.net.transport import Method, Stream, StreamMethod
from support.virtual_clock import run_virtual

A, B, C = Address("a:1"), Address("b:1"), Address("c:1")


def now() -> float:
    return asyncio.get_running_loop().time()


async def echo(stream: Stream) -> None:
    while (message := await stream.receive()) is not None:
        await stream.send(message)


async def answer(request: bytes) -> bytes:
    return request


async def node(network: MemoryNetwork, address: Address, **handlers: Any) -> MemoryTransport:
    transport = network.transport(address)
    unary = {Method.DELIVER: handlers.get("call", answer)}
    await transport.serve(unary, {StreamMethod.CONVERSE: handlers.get("converse", echo)})
    return transport


async def drain(stream: Stream) -> list[bytes]:
    """Receive until the stream ends or breaks."""
    received = []
    try:
        while (message := await stream.receive()) is not None:
            received.append(message)
    except StreamBrokenError:
        pass
    return received


async def flood(stream: Stream, count: int) -> int:
    """Send `count` messages, numbered from 0, or until the stream breaks; returns how many were sent."""
    for number in range(count):
        try:
            await stream.send(bytes((number,)))
        except StreamBrokenError:
            return number
    return count


def test_call_takes_the_delay_of_both_directions() -> None:
    async def main() -> float:
        network = MemoryNetwork()
        network.set_fault(LinkFault(delay_min_s=1.0, delay_max_s=1.0), A, B)
        network.set_fault(LinkFault(delay_min_s=0.5, delay_max_s=0.5), B, A)
        caller = await node(network, A)
        await node(network, B)
        assert await caller.call(B, Method.DELIVER, b"1", timeout_s=10) == b"1"
        return now()

    assert run_virtual(main()) == pytest.approx(1.5)


@pytest.mark.parametrize(("source", "target", "handled"), [(A, B, 0), (B, A, 1)], ids=["request", "answer"])
@pytest.mark.parametrize("by", ["loss", "cut"])
def test_lost_call_misses_its_deadline_whichever_way_was_lost(
    source: Address, target: Address, handled: int, by: str
) -> None:
    async def main() -> tuple[float, int]:
        calls = []

        async def count(request: bytes) -> bytes:
            calls.append(request)
            return b""

        network = MemoryNetwork()
        if by == "loss":
            network.set_fault(LinkFault(call_loss=1.0), source, target)
        else:
            network.cut(source, target)
        caller = await node(network, A)
        await node(network, B, call=count)
        with pytest.raises(DeadlineError):
            await caller.call(B, Method.DELIVER, b"1", timeout_s=3.0)
        return now(), len(calls)

    time, calls = run_virtual(main())
    assert time == pytest.approx(3.0)
    assert calls == handled


def test_calls_are_lost_as_often_as_asked() -> None:
    async def main() -> int:
        network = MemoryNetwork(seed=3)
        network.set_fault(LinkFault(call_loss=0.5), A, B)
        caller = await node(network, A)
        await node(network, B)
        lost = 0
        for _ in range(200):
            try:
                await caller.call(B, Method.DELIVER, b"1", timeout_s=1.0)
            except DeadlineError:
                lost += 1
        return lost

    assert 70 < run_virtual(main()) < 130


def test_messages_of_one_stream_keep_their_order_and_streams_overtake_each_other() -> None:
    arrivals: list[tuple[int, int]] = []

    async def record(stream: Stream) -> None:
        while (message := await stream.receive()) is not None:
            arrivals.append((message[0], message[1]))

    async def main() -> None:
        network = MemoryNetwork(seed=5, window=100)
        network.set_fault(LinkFault(delay_min_s=0.0, delay_max_s=1.0))
        caller = await node(network, A)
        await node(network, B, converse=record)
        streams = [await caller.open(B, StreamMethod.CONVERSE) for _ in range(3)]
        for number in range(10):
            for index, stream in enumerate(streams):
                await stream.send(bytes((index, number)))
        for stream in streams:
            await stream.end()
            await drain(stream)

    run_virtual(main())
    for index in range(3):
        assert [number for stream, number in arrivals if stream == index] == list(range(10))
    assert arrivals != sorted(arrivals, key=lambda arrival: arrival[1])


def test_calls_overtake_each_other() -> None:
    async def main() -> list[bytes]:
        arrivals = []

        async def record(request: bytes) -> bytes:
            arrivals.append(request)
            return b""

        network = MemoryNetwork(seed=1)
        network.set_fault(LinkFault(delay_max_s=1.0), A, B)
        caller = await node(network, A)
        await node(network, B, call=record)
        await asyncio.gather(*(caller.call(B, Method.DELIVER, bytes((n,)), timeout_s=5.0) for n in range(10)))
        return arrivals

    arrivals = run_virtual(main())
    assert sorted(arrivals) == [bytes((n,)) for n in range(10)]
    assert arrivals != sorted(arrivals)


@pytest.mark.parametrize("position", [0, 3])
def test_stream_breaks_at_the_given_message_at_both_ends(position: int) -> None:
    async def main() -> tuple[int, list[bytes]]:
        served: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

        async def take(stream: Stream) -> None:
            served.set_result(await drain(stream))

        network = MemoryNetwork()
        network.set_fault(LinkFault(reset_at=position), A, B)
        caller = await node(network, A)
        await node(network, B, converse=take)
        stream = await caller.open(B, StreamMethod.CONVERSE)
        sent = await flood(stream, 10)
        with pytest.raises(StreamBrokenError, match="reset"):
            await stream.receive()
        return sent, await served

    sent, received = run_virtual(main())
    assert sent == position
    assert received == [bytes((n,)) for n in range(len(received))]
    assert len(received) <= position


def test_reset_loses_some_all_or_none_of_what_was_on_its_way() -> None:
    async def main(seed: int) -> int:
        network = MemoryNetwork(seed)
        network.set_fault(LinkFault(delay_min_s=1.0, delay_max_s=1.0, reset_at=4), A, B)
        served: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

        async def take(stream: Stream) -> None:
            await asyncio.sleep(5.0)
            served.set_result(await drain(stream))

        caller = await node(network, A)
        await node(network, B, converse=take)
        stream = await caller.open(B, StreamMethod.CONVERSE)
        assert await flood(stream, 10) == 4
        return len(await served)

    assert {run_virtual(main(seed)) for seed in range(40)} == {0, 1, 2, 3, 4}


def test_random_resets_come_as_often_as_asked() -> None:
    async def main() -> int:
        network = MemoryNetwork(seed=2)
        network.set_fault(LinkFault(stream_reset=0.1), A, B)
        caller = await node(network, A)
        await node(network, B)
        broken = 0
        for _ in range(200):
            stream = await caller.open(B, StreamMethod.CONVERSE)
            try:
                await stream.send(b"1")
            except StreamBrokenError:
                broken += 1
            stream.cancel()
        return broken

    assert 8 <= run_virtual(main()) <= 40


def test_sender_is_held_at_the_window() -> None:
    async def main() -> int:
        async def take_nothing(stream: Stream) -> None:
            await asyncio.sleep(1000.0)

        network = MemoryNetwork(window=3)
        caller = await node(network, A)
        await node(network, B, converse=take_nothing)
        stream = await caller.open(B, StreamMethod.CONVERSE)
        flooding = asyncio.create_task(flood(stream, 10))
        await asyncio.sleep(10.0)
        assert not flooding.done()
        stream.cancel()
        return await flooding

    assert run_virtual(main()) == 3


def test_stream_over_a_cut_link_stalls_and_goes_on_when_it_heals() -> None:
    async def main() -> tuple[float, bytes | None]:
        network = MemoryNetwork(keepalive_s=30.0)
        caller = await node(network, A)
        await node(network, B)
        stream = await caller.open(B, StreamMethod.CONVERSE)
        network.cut(A, B)
        await stream.send(b"1")
        asyncio.get_running_loop().call_later(20.0, network.heal, A, B)
        message = await stream.receive()
        return now(), message

    time, message = run_virtual(main())
    assert message == b"1"
    assert time == pytest.approx(20.0)


@pytest.mark.parametrize("opened_first", [True, False])
def test_stream_over_a_link_that_stays_cut_breaks_at_both_ends_by_keepalive(opened_first: bool) -> None:
    async def main() -> float:
        network = MemoryNetwork(keepalive_s=30.0)
        caller = await node(network, A)
        await node(network, B)
        if not opened_first:
            network.cut(B, A)
        stream = await caller.open(B, StreamMethod.CONVERSE)
        network.cut(B, A)
        await stream.send(b"1")
        with pytest.raises(StreamBrokenError, match="keepalive"):
            await stream.receive()
        return now()

    assert run_virtual(main()) == pytest.approx(30.0)


def test_cut_is_one_way() -> None:
    async def main() -> list[bytes]:
        seen: list[bytes] = []

        async def record(request: bytes) -> bytes:
            seen.append(request)
            return b""

        network = MemoryNetwork()
        a, b = await node(network, A, call=record), await node(network, B, call=record)
        network.cut(A, B)
        for caller, peer in ((a, B), (b, A)):
            with pytest.raises(DeadlineError):
                await caller.call(peer, Method.DELIVER, peer.encode(), timeout_s=1.0)
        return seen

    assert run_virtual(main()) == [A.encode()]


def test_crashed_node_is_unreachable_its_handlers_stop_and_its_streams_break() -> None:
    async def main() -> list[str]:
        log: list[str] = []

        async def linger(stream: Stream) -> None:
            await stream.receive()
            try:
                await asyncio.sleep(100.0)
            finally:
                log.append("stopped")

        network = MemoryNetwork()
        caller = await node(network, A)
        await node(network, B, converse=linger)
        stream = await caller.open(B, StreamMethod.CONVERSE)
        await stream.send(b"1")
        await asyncio.sleep(1.0)
        network.crash(B)
        with pytest.raises(StreamBrokenError):
            await stream.receive()
        with pytest.raises(UnreachableError):
            await caller.call(B, Method.DELIVER, b"", timeout_s=1.0)
        await node(network, B)
        assert await caller.call(B, Method.DELIVER, b"2", timeout_s=1.0) == b"2"
        return log

    assert run_virtual(main()) == ["stopped"]


def scenario(seed: int) -> Callable[[], Any]:
    async def main() -> list[tuple[float, str]]:
        log: list[tuple[float, str]] = []

        async def record(stream: Stream) -> None:
            log.extend((now(), message.decode()) for message in await drain(stream))

        network = MemoryNetwork(seed)
        network.set_fault(LinkFault(delay_max_s=1.0, call_loss=0.2, stream_reset=0.05))
        caller = await node(network, A)
        for address in (B, C):
            await node(network, address, converse=record)

        async def talk(peer: Address, name: str) -> None:
            for number in range(10):
                try:
                    stream = await caller.open(peer, StreamMethod.CONVERSE)
                    for part in range(5):
                        await stream.send(f"{name}{number}.{part}".encode())
                    await stream.end()
                    await drain(stream)
                    await caller.call(peer, Method.DELIVER, b"", timeout_s=2.0)
                except (StreamBrokenError, DeadlineError) as error:
                    log.append((now(), str(error)))

        await asyncio.gather(talk(B, "b"), talk(C, "c"))
        return log

    return main


def test_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    first, again, other = (run_virtual(scenario(seed)()) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert any("reset" in text for _, text in first)

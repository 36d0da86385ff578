"""Links that are slower than they are, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from adpsgd_node.errors import StreamBrokenError
from adpsgd_node.ids import Address
from adpsgd_node.net.memory import MemoryNetwork
from adpsgd_node.net.slow_transport import MEASURED_SENDS, Bandwidth, SlowTransport, slowed
from adpsgd_node.net.transport import Method, Stream, StreamMethod, Transport
from support.virtual_clock import run_virtual

A, B = Address("a:1"), Address("b:1")
RATE = 1000.0
"""Bytes a second of a link that is not slowed down."""
MESSAGE = bytes(500)
"""Takes half a second on such a link."""


def now() -> float:
    return asyncio.get_running_loop().time()


class Pair:
    """Node b, which notes when messages come, and node a that sends them."""

    def __init__(self, factor_a: float = 1.0, factor_b: float = 1.0) -> None:
        network = MemoryNetwork(seed=1)
        self.a = slowed(network.transport(A), factor=factor_a, bytes_per_s=RATE)
        self.b = slowed(network.transport(B), factor=factor_b, bytes_per_s=RATE)
        self.came: list[float] = []
        self.broken: list[float] = []

    async def serve(self) -> None:
        async def note(stream: Stream) -> None:
            try:
                while await stream.receive() is not None:
                    self.came.append(now())
            except StreamBrokenError:
                self.broken.append(now())
                raise

        async def answer(request: bytes) -> bytes:
            return request

        await self.b.serve({Method.DELIVER: answer}, {StreamMethod.CONVERSE: note})

    async def open(self) -> Stream:
        return await self.a.open(B, StreamMethod.CONVERSE)


async def send_all(stream: Stream, count: int) -> None:
    for _ in range(count):
        await stream.send(MESSAGE)
    await stream.end()
    assert await stream.receive() is None


@pytest.mark.parametrize(
    ("factor_a", "factor_b", "first", "gap"),
    [(1.0, 1.0, 0.5, 0.5), (10.0, 1.0, 5.0, 5.0), (1.0, 10.0, 5.0, 5.0), (4.0, 2.0, 2.5, 2.0)],
    ids=["none is slow", "the sender is", "the receiver is", "both are"],
)
def test_messages_come_at_the_rate_of_the_slower_end(
    factor_a: float, factor_b: float, first: float, gap: float
) -> None:
    async def main() -> None:
        pair = Pair(factor_a, factor_b)
        await pair.serve()
        await send_all(await pair.open(), 3)
        assert pair.came == pytest.approx([first, first + gap, first + 2 * gap])

    run_virtual(main())


def test_streams_of_a_node_share_its_bandwidth() -> None:
    async def main() -> None:
        pair = Pair(factor_a=2.0)
        await pair.serve()
        streams = [await pair.open() for _ in range(3)]
        await asyncio.gather(*(send_all(stream, 2) for stream in streams))
        assert pair.came == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])

    run_virtual(main())


def test_the_two_directions_do_not_share_it() -> None:
    async def main() -> None:
        pair = Pair(factor_b=2.0)
        back: list[float] = []

        async def note(stream: Stream) -> None:
            while await stream.receive() is not None:
                back.append(now())

        await pair.serve()
        await pair.a.serve({}, {StreamMethod.CONVERSE: note})
        there, here = await pair.open(), await pair.b.open(A, StreamMethod.CONVERSE)
        await asyncio.gather(send_all(there, 3), send_all(here, 3))
        assert pair.came == pytest.approx([1.0, 2.0, 3.0])
        assert back == pytest.approx([1.0, 2.0, 3.0])

    run_virtual(main())


def test_a_link_that_was_idle_has_saved_nothing_up() -> None:
    async def main() -> None:
        pair = Pair()
        await pair.serve()
        stream = await pair.open()
        await asyncio.sleep(100.0)
        await send_all(stream, 2)
        assert pair.came == pytest.approx([100.5, 101.0])

    run_virtual(main())


def test_unary_calls_pass_a_link_that_is_full() -> None:
    async def main() -> None:
        pair = Pair(factor_a=1000.0)
        await pair.serve()
        sending = asyncio.create_task(send_all(await pair.open(), 1))
        await asyncio.sleep(0.001)  # in virtual time: what can run by then has, so the link is full
        assert await pair.a.call(B, Method.DELIVER, MESSAGE, timeout_s=0.001) == MESSAGE
        assert now() < 0.01
        await sending

    run_virtual(main())


async def _send(stream: Stream) -> object:
    return await stream.send(MESSAGE)


async def _receive(stream: Stream) -> object:
    return await stream.receive()


@pytest.mark.parametrize("use", [_send, _receive])
def test_a_stream_cancelled_while_a_message_is_under_way_breaks_at_once(
    use: Callable[[Stream], Awaitable[object]],
) -> None:
    async def main() -> None:
        network = MemoryNetwork(seed=1)
        slow = slowed(network.transport(A), factor=1000.0, bytes_per_s=RATE)
        await network.transport(B).serve({}, {StreamMethod.CONVERSE: _send_one})
        stream = await slow.open(B, StreamMethod.CONVERSE)
        waiting = asyncio.ensure_future(use(stream))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        stream.cancel()
        with pytest.raises(StreamBrokenError):
            await waiting
        assert now() == pytest.approx(1.0)
        with pytest.raises(StreamBrokenError):
            await stream.receive()

    run_virtual(main())


def test_a_receive_cancelled_while_its_message_is_under_way_breaks_the_stream() -> None:
    async def main() -> None:
        network = MemoryNetwork(seed=1)
        slow = slowed(network.transport(A), factor=1000.0, bytes_per_s=RATE)
        await network.transport(B).serve({}, {StreamMethod.CONVERSE: _send_one})
        stream = await slow.open(B, StreamMethod.CONVERSE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await stream.receive()
        with pytest.raises(StreamBrokenError):
            await stream.receive()

    run_virtual(main())


def test_closing_does_not_wait_for_messages_under_way() -> None:
    async def main() -> None:
        pair = Pair(factor_b=1000.0)
        await pair.serve()
        stream = await pair.open()
        await stream.send(MESSAGE)
        await asyncio.sleep(1.0)
        await pair.b.close(grace_s=2.0)
        assert pair.broken == pytest.approx([now()])
        assert now() < 4.0

    run_virtual(main())


async def _send_one(stream: Stream) -> None:
    await stream.send(MESSAGE)
    await stream.receive()


def test_without_a_rate_what_sending_is_measured_to_take_is_stretched() -> None:
    bandwidth = Bandwidth(10.0, 0.0)
    assert bandwidth.sending(10_000, now=1.0) == 1.0  # nothing is known yet
    bandwidth.sent(10_000, 0.2)
    # 20 us a byte: sending takes 0.2 s by itself and ten times that in all; so does receiving
    assert bandwidth.sending(10_000, now=5.0) == pytest.approx(5.0 + 1.8)
    assert bandwidth.received(5_000, now=5.0) == pytest.approx(5.0 + 0.9)


def test_a_send_that_waited_for_its_peer_does_not_count_for_the_link() -> None:
    bandwidth = Bandwidth(10.0, 0.0)
    for seconds in (0.1, 60.0, 0.1, 0.1):
        bandwidth.sent(10_000, seconds)
    assert bandwidth.sending(10_000, now=0.0) == pytest.approx(0.9)


def test_small_messages_and_old_ones_are_no_measure() -> None:
    bandwidth = Bandwidth(10.0, 0.0)
    bandwidth.sent(10, 1.0)
    assert bandwidth.sending(10_000, now=0.0) == 0.0
    for seconds in (*(60.0,) * MEASURED_SENDS, *(0.1,) * MEASURED_SENDS):
        bandwidth.sent(10_000, seconds)
    assert bandwidth.sending(10_000, now=0.0) == pytest.approx(0.9)


@pytest.mark.parametrize(("factor", "bytes_per_s"), [(2.0, 0.0), (1.0, RATE)])
def test_only_a_link_with_a_handicap_is_wrapped(factor: float, bytes_per_s: float) -> None:
    plain: Transport = MemoryNetwork(seed=1).transport(A)
    assert slowed(plain) is plain
    assert isinstance(slowed(plain, factor=factor, bytes_per_s=bytes_per_s), SlowTransport)

"""A joiner gets the whole model whatever becomes of single donors, and says why when it cannot."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adpsgd_node.core.fetch import FetchConfig
from adpsgd_node.core.membership.member import Phase
from adpsgd_node.daemon.donor import BLOCK_BYTES, BURST_S, MAX_FETCHES, SEND_TIMEOUT_S
from adpsgd_node.errors import SchemaMismatchError, StreamBrokenError
from adpsgd_node.ids import PROTOCOL_VERSION, Address, RunId
from adpsgd_node.net.fault import LinkFault
from adpsgd_node.net.transport import StreamMethod
from adpsgd_node.wire.fetch import (
    FetchChunk,
    FetchFrame,
    FetchHeader,
    FetchRequest,
    FetchTrailer,
    decode_fetch,
    encode_fetch,
)
from support.donor_group import RUN, DonorGroup, counted, layout_of
from support.virtual_clock import run_virtual

CHUNK_BYTES = 4096
CHUNKS = 120
RATE = 20 * CHUNK_BYTES
"""Bytes a second that a donor gives here: 20 chunks."""
WINDOW = FetchConfig().window


def group_of(chunks: int = CHUNKS) -> DonorGroup:
    return DonorGroup(elements=chunks * CHUNK_BYTES // 4, chunk_bytes=CHUNK_BYTES)


def now() -> float:
    return asyncio.get_running_loop().time()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run in virtual time; every task must have ended when `main` has."""

    async def whole() -> None:
        await main
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in left if task.get_name().startswith("fetch chunks")]

    run_virtual(whole())


def test_the_whole_model_comes_from_several_donors_in_a_share_of_the_time() -> None:
    async def main() -> None:
        group = group_of()
        for _ in range(3):
            await group.add(RATE)
        fetcher, plane, metrics = group.joiner()
        donor = await fetcher.fetch(group.members, plane)
        assert donor in [member.id for member in group.members]
        sources = group.sources(plane)
        assert set(sources) == {"n0", "n1", "n2"}
        assert now() < 1.5 * CHUNKS / 20 / 3
        assert counted(metrics, "adpsgd_model_bytes_fetched_total") == CHUNKS * CHUNK_BYTES
        given = sum(counted(giver.metrics, "adpsgd_model_bytes_given_total") for giver in group.givers)
        assert given < (CHUNKS + 3 * WINDOW) * CHUNK_BYTES

    run(main())


def test_what_a_donor_has_not_folded_yet_is_given_too() -> None:
    async def main() -> None:
        group = group_of(3)
        giver = await group.add()
        giver.plane.add_to_inbox(1, np.ones(CHUNK_BYTES // 4, np.float32))
        fetcher, plane, _ = group.joiner()
        await fetcher.fetch(group.members, plane)
        start, stop = group.layout.chunks[1]
        np.testing.assert_allclose(plane.live[start:stop], giver.plane.live[start:stop] + 1, rtol=1e-6)

    run(main())


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_donor_that_dies_half_way_costs_less_than_a_window_again(at_once: int) -> None:
    async def main() -> None:
        group = group_of()
        dying, *others = [await group.add(RATE) for _ in range(3)]
        share = CHUNKS // 2 if at_once == 1 else CHUNKS // 8

        def die(given: int) -> None:
            if given == share:
                group.network.crash(dying.member.address)

        dying.on_chunk = die
        fetcher, plane, metrics = group.joiner(at_once)
        await fetcher.fetch(group.members, plane)
        sources = group.sources(plane)
        assert sources.count("n0") > share - WINDOW, "what had come from the dead donor is kept"
        assert "" not in sources
        assert sources.count("n1") > 0
        # Whatever any donor sent beyond one model was sent again.
        sent = sum(len(giver.given) for giver in (dying, *others))
        assert sent - CHUNKS < WINDOW
        assert counted(metrics, "adpsgd_refetched_chunks_total") == 0

    run(main())


def test_streams_that_keep_breaking_are_taken_up_where_they_broke() -> None:
    async def main() -> None:
        group = group_of(40)
        giver = await group.add()
        group.network.set_fault(LinkFault(reset_at=6))
        fetcher, plane, _ = group.joiner()
        assert await fetcher.fetch(group.members, plane) == giver.member.id
        assert set(group.sources(plane)) == {"n0"}
        assert len(giver.headers) > 5

    run(main())


def corrupted(frame: FetchFrame) -> FetchFrame:
    if isinstance(frame, FetchChunk) and frame.index % 7 == 3:
        return replace(frame, data=bytes([frame.data[0] ^ 1]) + bytes(frame.data[1:]))
    return frame


def misplaced(frame: FetchFrame) -> FetchFrame:
    return replace(frame, index=frame.index + 1) if isinstance(frame, FetchChunk) else frame


def shortened(frame: FetchFrame) -> FetchFrame:
    return replace(frame, data=frame.data[4:]) if isinstance(frame, FetchChunk) else frame


def wrong_end(frame: FetchFrame) -> FetchFrame:
    return FetchTrailer(frame.crc32 ^ 1) if isinstance(frame, FetchTrailer) else frame


def endless(frame: FetchFrame) -> FetchFrame:
    return FetchChunk(0, 0, b"") if isinstance(frame, FetchTrailer) else frame


def headless(frame: FetchFrame) -> FetchFrame | None:
    return frame if isinstance(frame, FetchChunk | FetchTrailer) else None


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        (corrupted, "fails its checksum"),
        (misplaced, "something else came"),
        (shortened, "bytes, not 4096"),
        (wrong_end, "do not end with their checksum"),
        (endless, "do not end with their checksum"),
        (headless, "answered with FetchHeader"),
    ],
)
def test_a_donor_that_sends_what_is_wrong_is_dropped_and_named(
    tamper: Any, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        group = group_of()
        liar, _ = await group.add(RATE), await group.add(RATE)
        liar.tamper = tamper
        fetcher, plane, _ = group.joiner()
        honest = group.members[1].id
        assert await fetcher.fetch(group.members, plane) == honest or tamper in (wrong_end, endless)
        assert "" not in group.sources(plane)

    run(main())
    dropped = [record.fields for record in caplog.records if "asks this donor no more" in record.getMessage()]  # type: ignore[attr-defined]
    assert [str(fields["donor"]) for fields in dropped] == ["n0#1"]
    assert complaint in dropped[0]["why"]


def test_values_that_are_not_finite_are_not_taken() -> None:
    async def main() -> None:
        group = group_of(20)
        giver = await group.add()
        giver.plane.live[-1] = math.nan
        fetcher, plane, _ = group.joiner()
        with pytest.raises(StreamBrokenError, match="n0#1: chunk 19 holds values that are not finite"):
            await fetcher.fetch(group.members, plane)
        assert np.isfinite(plane.live).all()

    run(main())


def test_a_donor_that_gives_its_model_up_stops_giving() -> None:
    async def main() -> None:
        group = group_of(40)
        failing, _ = await group.add(RATE), await group.add(RATE)

        def poison(given: int) -> None:
            failing.has_model = given < 5

        failing.on_chunk = poison
        fetcher, plane, _ = group.joiner(1)
        await fetcher.fetch(group.members, plane)
        assert len(failing.given) == 5
        assert group.sources(plane).count("n1") == 35

    run(main())


def test_when_all_donors_are_gone_each_is_named_with_its_reason() -> None:
    async def main() -> None:
        group = group_of()
        liar, dying = await group.add(RATE), await group.add(RATE)
        liar.tamper = corrupted
        dying.on_chunk = lambda given: group.network.crash(dying.member.address) if given == 10 else None
        fetcher, plane, _ = group.joiner()
        with pytest.raises(StreamBrokenError, match=r"n0#1: chunk 3 fails.*; n1#1: .*3 times in a row"):
            await fetcher.fetch(group.members, plane)

    run(main())


def test_nobody_who_can_be_dialled_is_an_error_at_once() -> None:
    async def main() -> None:
        group = group_of(3)
        giver = await group.add()
        fetcher, plane, _ = group.joiner()
        with pytest.raises(StreamBrokenError, match="only call others"):
            await fetcher.fetch([replace(giver.member, outbound_only=True)], plane)

    run(main())


def test_a_donor_of_another_chunk_size_is_a_mismatch_that_names_the_fix() -> None:
    async def main() -> None:
        group = group_of(8)
        await group.add(layout=layout_of(8 * CHUNK_BYTES // 4, 2 * CHUNK_BYTES))
        fetcher, plane, _ = group.joiner()
        with pytest.raises(SchemaMismatchError, match="8 chunks of 4096 bytes expected, 4 of 8192 .*--chunk-bytes"):
            await fetcher.fetch(group.members, plane)
        await group.add()
        assert (await fetcher.fetch(group.members, plane)).name == "n1", "others may fit"

    run(main())


@pytest.mark.parametrize(
    ("change", "why"),
    [({"has_model": False}, "no model to give"), ({"phase": Phase.DRAINING}, "is leaving")],
)
def test_a_donor_that_has_nothing_to_give_is_not_asked_again(change: dict[str, Any], why: str) -> None:
    async def main() -> None:
        group = group_of(8)
        giver = await group.add()
        for name, value in change.items():
            setattr(giver, name, value)
        fetcher, plane, _ = group.joiner()
        with pytest.raises(StreamBrokenError, match=why):
            await fetcher.fetch(group.members, plane)
        assert len(giver.headers) == 1

    run(main())


def test_a_donor_of_another_run_is_not_asked_again() -> None:
    async def main() -> None:
        group = group_of(8)
        giver = await group.add()
        fetcher, plane, _ = group.joiner(run=RunId("other"))
        with pytest.raises(StreamBrokenError, match="run 'test' expected, 'other' came"):
            await fetcher.fetch(group.members, plane)
        assert counted(giver.metrics, 'adpsgd_fetches_total{outcome="refused"}') == 1

    run(main())


def test_more_joiners_than_a_donor_serves_wait_their_turn_and_all_are_served() -> None:
    async def main() -> None:
        group = group_of(60)
        giver = await group.add(RATE)
        joiners = [group.joiner() for _ in range(4)]
        await asyncio.gather(*(fetcher.fetch(group.members, plane) for fetcher, plane, _ in joiners))
        assert all(set(group.sources(plane)) == {"n0"} for _, plane, _ in joiners)
        refused = [header for header in giver.headers if header.refusal is not None]
        assert refused
        assert counted(giver.metrics, 'adpsgd_fetches_total{outcome="busy"}') == len(refused)
        # Two ranges of 30 chunks are under way at 20 a second: 3 s, told when the third joiner asks.
        assert refused[0].retry_after_ms == pytest.approx(3000, rel=0.1)
        assert len(giver.given) == 4 * 60
        assert now() == pytest.approx(4 * 60 / 20, rel=0.25), "the budget is neither exceeded nor left unused"

    run(main())


def test_all_fetches_of_a_donor_share_one_budget() -> None:
    async def main() -> None:
        group = group_of(200)
        giver = await group.add(RATE)
        times: list[float] = []
        giver.on_chunk = lambda _: times.append(now())
        joiners = [group.joiner() for _ in range(MAX_FETCHES)]
        await asyncio.gather(*(fetcher.fetch(group.members, plane) for fetcher, plane, _ in joiners))
        for first in range(0, len(times), 7):
            for last in range(first, len(times), 7):
                allowed = RATE * (times[last] - times[first] + BURST_S) + MAX_FETCHES * CHUNK_BYTES
                assert (last - first) * CHUNK_BYTES <= allowed * 1.001
        assert times[-1] == pytest.approx(len(times) / 20, rel=0.05)

    run(main())


@pytest.mark.parametrize("chunks", [(8, 0), (8, 1), (7, 2), (0, 9)])
def test_a_range_beyond_the_model_is_refused_for_good(chunks: tuple[int, int]) -> None:
    async def main() -> None:
        group = group_of(8)
        giver = await group.add()
        stream = await group.network.transport(Address("asker:1")).open(giver.member.address, StreamMethod.FETCH)
        await stream.send(encode_fetch(FetchRequest(PROTOCOL_VERSION, RUN, group.layout.schema, *chunks)))
        header = decode_fetch(await stream.receive() or b"")
        assert isinstance(header, FetchHeader)
        assert header.refusal is not None
        assert "there are 8" in header.refusal.detail
        assert (header.chunk_count, header.chunk_bytes, header.retry_after_ms) == (8, CHUNK_BYTES, 0)
        assert await stream.receive() is None

    run(main())


def test_the_event_loop_turns_while_a_large_chunk_is_made_ready() -> None:
    async def main() -> None:
        group = DonorGroup(elements=1 << 20, chunk_bytes=4 * BLOCK_BYTES)
        giver = await group.add(bytes_per_s=1 << 30)
        fetcher, plane, _ = group.joiner()
        fetching = asyncio.create_task(fetcher.fetch(group.members, plane))
        while not giver.headers:
            await asyncio.sleep(0)
        turns = 0
        while not giver.given:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 4, "the chunk has four blocks"
        await fetching

    run(main())


def test_a_joiner_that_takes_nothing_more_loses_its_place() -> None:
    async def main() -> None:
        group = group_of(60)
        giver = await group.add()
        stream = await group.network.transport(Address("stuck:1")).open(giver.member.address, StreamMethod.FETCH)
        await stream.send(encode_fetch(FetchRequest(PROTOCOL_VERSION, RUN, group.layout.schema)))
        await asyncio.sleep(SEND_TIMEOUT_S + 1)
        assert 0 < len(giver.given) < 20, "the stream's window is full"
        assert counted(giver.metrics, 'adpsgd_fetches_total{outcome="broken"}') == 1

    run(main())


def test_a_cancelled_fetch_leaves_nothing_running() -> None:
    async def main() -> None:
        group = group_of()
        giver = await group.add(RATE)
        fetcher, plane, _ = group.joiner()
        fetching = asyncio.create_task(fetcher.fetch(group.members, plane))
        async with asyncio.timeout(60):  # in virtual time
            while not giver.given:
                await asyncio.sleep(0.01)  # between two looks
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        given = len(giver.given)
        await asyncio.sleep(60)
        assert len(giver.given) <= given + 1

    run(main())

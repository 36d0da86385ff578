from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from adpsgd_node.errors import UnreachableError
from adpsgd_node.ids import Address
from adpsgd_node.net.channel import ChannelCache
from adpsgd_node.net.credentials import Credentials
from adpsgd_node.net.option import LinkConfig

A, B, C = (Address(f"127.0.0.1:{port}") for port in (1, 2, 3))


@pytest.fixture
async def cache() -> AsyncIterator[ChannelCache]:
    cache = ChannelCache(Credentials(), LinkConfig(max_channels=2))
    yield cache
    await cache.close()


async def test_channel_of_an_address_stays_the_same(cache: ChannelCache) -> None:
    async with cache.lease(A) as first, cache.lease(A) as second:
        assert first is second
    async with cache.lease(A) as third:
        assert third is first


async def test_channel_unused_for_longest_makes_room(cache: ChannelCache) -> None:
    channels = {}
    for peer in (A, B, A, C):
        async with cache.lease(peer) as channel:
            channels[peer] = channel
    assert len(cache) == 2
    async with cache.lease(A) as channel:
        assert channel is channels[A]
    async with cache.lease(B) as channel:
        assert channel is not channels[B]


async def test_channel_in_use_is_not_closed_for_another(cache: ChannelCache) -> None:
    async with cache.lease(A) as first:
        for peer in (B, C):
            async with cache.lease(peer):
                pass
        async with cache.lease(A) as again:
            assert again is first


async def test_limit_holds_when_all_channels_are_in_use(cache: ChannelCache) -> None:
    async with cache.lease(A), cache.lease(B):
        with pytest.raises(UnreachableError, match="max_channels"):
            await cache.acquire(C)
    async with cache.lease(C):
        assert len(cache) == 2


async def test_closed_cache_opens_nothing(cache: ChannelCache) -> None:
    channel = await cache.acquire(A)
    await cache.close()
    cache.release(A, channel)
    with pytest.raises(UnreachableError, match="closed"):
        await cache.acquire(A)


async def test_retired_channel_is_replaced_at_once_and_closed_by_its_last_user(cache: ChannelCache) -> None:
    async with cache.lease(A) as first:
        cache.retire(A, first)
        async with cache.lease(A) as second:
            assert second is not first
            cache.retire(A, first)  # told again, late: the new one is not at fault
            async with cache.lease(A) as third:
                assert third is second
        assert first.get_state() is not grpc.ChannelConnectivity.SHUTDOWN
    await cache.close()
    assert first.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    assert second.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_channel_that_is_not_connected_is_retired_by_one_silent_call(cache: ChannelCache) -> None:
    async with cache.lease(A) as first:
        cache.silent(A, first)
    async with cache.lease(A) as second:
        assert second is not first

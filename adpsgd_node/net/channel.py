"""Keep warm connections to peers, a bounded number of them, and give up those that lead nowhere.

A channel that cannot connect waits longer and longer before it tries again, and it asks for the addresses behind a name
only now and then; one whose path was cut in mid-flight waits for TCP to send again. So a channel over which a call got
no answer is retired: the next call connects anew, to the address that the name has then. Whoever calls decides how
often; a healed path is found by the first call after it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio

from adpsgd_node.errors import UnreachableError
from adpsgd_node.ids import Address
from adpsgd_node.net.credentials import Credentials
from adpsgd_node.net.option import LinkConfig, client_options

__all__ = ["MAX_SILENT_CALLS", "ChannelCache"]

MAX_SILENT_CALLS = 2
"""Calls in a row without an answer after which an established connection is taken for cut; one may be a busy peer."""


@dataclass(slots=True, eq=False)
class _Entry:
    channel: grpc.aio.Channel
    users: int = 0
    silent_calls: int = 0


class ChannelCache:
    """One channel per address; the one unused for longest is closed when a new one would exceed the limit."""

    def __init__(self, credentials: Credentials, config: LinkConfig) -> None:
        self._credentials = credentials
        self._options = client_options(config)
        self._limit = config.max_channels
        self._entries: OrderedDict[Address, _Entry] = OrderedDict()
        self._retired: dict[grpc.aio.Channel, _Entry] = {}  # still in use, each by a call of its user's
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._entries)

    async def acquire(self, peer: Address) -> grpc.aio.Channel:
        """Return the channel to `peer`, which stays open until as many `release` calls. Raises `UnreachableError`."""
        if self._closed:
            raise UnreachableError(f"cannot reach {peer}: this node's transport is closed")
        entry = self._entries.get(peer)
        evicted = None
        if entry is None:
            evicted = self._make_room(peer)
            entry = self._entries[peer] = _Entry(self._credentials.channel(peer, self._options))
        self._entries.move_to_end(peer)
        entry.users += 1
        if evicted is not None:
            try:
                await evicted.close(None)
            except BaseException:
                entry.users -= 1
                raise
        return entry.channel

    def release(self, peer: Address, channel: grpc.aio.Channel) -> None:
        """Say that one user of the channel has done with it."""
        entry = self._entry(peer, channel)
        if entry is None:  # closed meanwhile
            return
        entry.users -= 1
        if entry.users == 0 and self._retired.pop(channel, None) is not None:
            self._close_soon(channel)

    @asynccontextmanager
    async def lease(self, peer: Address) -> AsyncIterator[grpc.aio.Channel]:
        channel = await self.acquire(peer)
        try:
            yield channel
        finally:
            self.release(peer, channel)

    def answered(self, peer: Address, channel: grpc.aio.Channel) -> None:
        """Take note that the peer answered a call."""
        entry = self._entry(peer, channel)
        if entry is not None:
            entry.silent_calls = 0

    def silent(self, peer: Address, channel: grpc.aio.Channel) -> None:
        """Take note of a call without an answer in time: retire a channel that is not connected, or silent again."""
        entry = self._entry(peer, channel)
        if entry is None:
            return
        entry.silent_calls += 1
        connected = channel.get_state() is grpc.ChannelConnectivity.READY
        if not connected or entry.silent_calls >= MAX_SILENT_CALLS:
            self.retire(peer, channel)

    def retire(self, peer: Address, channel: grpc.aio.Channel) -> None:
        """Have whoever comes next connect anew; what still runs on `channel` may end there."""
        entry = self._entries.get(peer)
        if entry is None or entry.channel is not channel:
            return
        del self._entries[peer]
        if entry.users:
            self._retired[channel] = entry
        else:
            self._close_soon(channel)

    async def close(self) -> None:
        """Close all channels and break what still runs on them."""
        self._closed = True
        while self._entries:
            _, entry = self._entries.popitem()
            await entry.channel.close(None)
        while self._retired:
            channel, _ = self._retired.popitem()
            await channel.close(None)
        await asyncio.gather(*self._closing)

    def _entry(self, peer: Address, channel: grpc.aio.Channel) -> _Entry | None:
        entry = self._entries.get(peer)
        return entry if entry is not None and entry.channel is channel else self._retired.get(channel)

    def _close_soon(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.get_running_loop().create_task(channel.close(None), name="close a channel")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _make_room(self, peer: Address) -> grpc.aio.Channel | None:
        if len(self._entries) < self._limit:
            return None
        for address, entry in self._entries.items():
            if entry.users == 0:
                del self._entries[address]
                return entry.channel
        raise UnreachableError(f"cannot reach {peer}: all {self._limit} connections (max_channels) are in use")

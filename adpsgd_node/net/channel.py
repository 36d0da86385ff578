"""Keep warm connections to peers, a bounded number of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio

from adpsgd_node.errors import UnreachableError
from adpsgd_node.ids import Address
from adpsgd_node.net.credentials import Credentials
from adpsgd_node.net.option import LinkConfig, client_options

__all__ = ["ChannelCache"]


@dataclass(slots=True)
class _Entry:
    channel: grpc.aio.Channel
    users: int = 0


class ChannelCache:
    """One channel per address; the one unused for longest is closed when a new one would exceed the limit."""

    def __init__(self, credentials: Credentials, config: LinkConfig) -> None:
        self._credentials = credentials
        self._options = client_options(config)
        self._limit = config.max_channels
        self._entries: OrderedDict[Address, _Entry] = OrderedDict()
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

    def release(self, peer: Address) -> None:
        entry = self._entries.get(peer)
        if entry is not None:  # none: closed meanwhile
            entry.users -= 1

    @asynccontextmanager
    async def lease(self, peer: Address) -> AsyncIterator[grpc.aio.Channel]:
        channel = await self.acquire(peer)
        try:
            yield channel
        finally:
            self.release(peer)

    async def close(self) -> None:
        """Close all channels and break what still runs on them."""
        self._closed = True
        while self._entries:
            _, entry = self._entries.popitem()
            await entry.channel.close(None)

    def _make_room(self, peer: Address) -> grpc.aio.Channel | None:
        if len(self._entries) < self._limit:
            return None
        for address, entry in self._entries.items():
            if entry.users == 0:
                del self._entries[address]
                return entry.channel
        raise UnreachableError(f"cannot reach {peer}: all {self._limit} connections (max_channels) are in use")

"""A stream whose other end is the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from adpsgd_node.net.transport import Stream

__all__ = ["ScriptedStream"]


class ScriptedStream(Stream):
    """Gives what the test puts in `inbox` (None: a clean end), and keeps what is sent.

    `sendable` bounds how many messages go out before a send waits for ever, as in a peer's closed window; `answer`
    gives what the peer says to each message sent.
    """

    def __init__(
        self, sendable: int = 1_000_000, answer: Callable[[bytes], Iterable[bytes | None]] = lambda _: ()
    ) -> None:
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sent: list[bytes] = []
        self.cancelled = False
        self._sendable = sendable
        self._answer = answer

    async def send(self, message: bytes) -> None:
        if len(self.sent) >= self._sendable:
            await asyncio.get_running_loop().create_future()
        self.sent.append(message)
        for reply in self._answer(message):
            self.inbox.put_nowait(reply)

    async def receive(self) -> bytes | None:
        return await self.inbox.get()

    async def end(self) -> None:
        pass

    def cancel(self) -> None:
        self.cancelled = True

"""A way between two processes that a test can cut: a TCP relay that swallows what passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adpsgd_node.ids import Address

__all__ = ["TcpPath", "read_some"]


class TcpPath:
    """A TCP relay to a server; what passes while it is `cut`, and the connections it passed on, are lost for good."""

    def __init__(self) -> None:
        self.cut = False
        self.connections = 0
        self.address = Address("")
        self._target = ("", 0)
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def to(cls, target: Address | None = None) -> AsyncIterator[TcpPath]:
        """Open a way to `target`, or to whom `lead_to` says later."""
        path = cls()
        if target is not None:
            path.lead_to(target)
        listener = await asyncio.start_server(path._accept, "127.0.0.1", 0)
        path.address = Address(f"127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        try:
            yield path
        finally:
            listener.close()
            for task in path._tasks:
                task.cancel()
            await asyncio.gather(*path._tasks, return_exceptions=True)

    def lead_to(self, target: Address) -> None:
        """Say where the way leads."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        alive = [not self.cut]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pass_on(source, sink, alive))
            self._tasks.add(task)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, alive: list[bool]) -> None:
        while data := await read_some(source):
            alive[0] = alive[0] and not self.cut
            if alive[0]:
                sink.write(data)
        sink.close()


async def read_some(reader: asyncio.StreamReader) -> bytes:
    """Read what has come; nothing once the other end is gone."""
    try:
        return await reader.read(1024)
    except ConnectionError:
        return b""

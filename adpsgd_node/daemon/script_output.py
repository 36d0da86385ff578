"""Pass a script's output on, line by line, without letting it flood or block the daemon."""

from __future__ import annotations

import asyncio
import subprocess
from functools import partial
from typing import IO, Protocol

from adpsgd_node.telemetry.output import Channel

__all__ = ["LineSink", "Lines", "PrefixedSink", "ScriptOutput"]

MAX_LINE_BYTES = 8192
"""A longer line is passed on in pieces of this size."""

READ_BYTES = 65_536
"""Most bytes taken from a pipe at a time, and most that asyncio buffers before it stops reading."""


class LineSink(Protocol):
    def write(self, channel: Channel, line: bytes) -> None:
        """Take one line without its newline. Never blocks."""


class PrefixedSink:
    """Mark each line with the node's name: `[node-1] ...`."""

    def __init__(self, node: str, sink: LineSink) -> None:
        self._prefix = f"[{node}] ".encode()
        self._sink = sink

    def write(self, channel: Channel, line: bytes) -> None:
        self._sink.write(channel, self._prefix + line)


class Lines:
    """Cut a stream of bytes into lines of bounded length."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; returns the lines they complete, without newlines (a progress bar's `\\r` ends a line too)."""
        text = self._rest + data
        # A final \r may be the first half of \r\n: it waits for what follows.
        held = b"\r" if text.endswith(b"\r") else b""
        text = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *complete, rest = text.split(b"\n")
        lines = [piece for line in complete for piece in self._pieces(line)]
        *full, rest = self._pieces(rest)
        self._rest = rest + held
        return lines + full

    def finish(self) -> list[bytes]:
        """Return the unfinished last line, if there is one."""
        rest, self._rest = self._rest.removesuffix(b"\r"), b""
        return [rest] if rest else []

    def _pieces(self, line: bytes) -> list[bytes]:
        return [line[at : at + self._limit] for at in range(0, len(line), self._limit)] or [b""]


class ScriptOutput:
    """Read the two pipes of one process until they end, or until nobody waits for them any more."""

    def __init__(self, process: subprocess.Popen[bytes], sink: LineSink) -> None:
        assert process.stdout is not None, "the script is started with a pipe as its stdout"
        assert process.stderr is not None, "the script is started with a pipe as its stderr"
        self._pipes: dict[Channel, IO[bytes]] = {Channel.OUT: process.stdout, Channel.ERROR: process.stderr}
        self._sink = sink
        self._transports: list[asyncio.ReadTransport] = []
        self._pumps: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for channel, pipe in self._pipes.items():
            reader = asyncio.StreamReader(limit=READ_BYTES)
            transport, _ = await loop.connect_read_pipe(partial(asyncio.StreamReaderProtocol, reader), pipe)
            self._transports.append(transport)
            self._pumps.append(asyncio.create_task(self._pump(channel, reader), name=f"script {channel.value}"))

    async def drain(self, timeout_s: float) -> None:
        """Wait for the end of both pipes; a process left behind by the script may keep them open, so not for ever."""
        ended, waiting = await asyncio.wait(self._pumps, timeout=timeout_s)
        for pump in waiting:
            pump.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for pump in ended:
            pump.result()  # a fault of the sink is ours, and must be heard

    def close(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        for transport in self._transports:
            transport.close()
        for pipe in list(self._pipes.values())[len(self._transports) :]:
            pipe.close()  # never handed to a transport

    async def _pump(self, channel: Channel, reader: asyncio.StreamReader) -> None:
        lines = Lines()
        try:
            while data := await reader.read(READ_BYTES):
                for line in lines.feed(data):
                    self._sink.write(channel, line)
        finally:
            for line in lines.finish():
                self._sink.write(channel, line)

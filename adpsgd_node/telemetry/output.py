"""Write lines to stdout and stderr without ever making the event loop, or the trainer behind it, wait for a reader.

A terminal stopped with Ctrl-S, or a pipe nobody reads, blocks a write for ever. So one thread writes, from a bounded
queue; when that is full, lines are dropped, and how many is said as soon as there is room again.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from typing import BinaryIO

__all__ = ["Channel", "LineWriter"]

MAX_QUEUED_LINES = 10_000
MAX_QUEUED_BYTES = 4 * 1024 * 1024


class Channel(enum.Enum):
    OUT = "stdout"
    ERROR = "stderr"


class LineWriter:
    """Queue lines for the two streams; `close` writes what is queued."""

    def __init__(self, out: BinaryIO, error: BinaryIO) -> None:
        self._streams = {Channel.OUT: out, Channel.ERROR: error}
        self._changed = threading.Condition()
        self._queue: deque[tuple[Channel, bytes]] = deque()
        self._queued_bytes = 0
        self._dropped = {Channel.OUT: 0, Channel.ERROR: 0}
        self._closing = False
        # A daemon thread: a blocked reader must not keep the process from ending.
        self._thread = threading.Thread(target=self._write_all, name="line-writer", daemon=True)
        self._thread.start()

    def write(self, channel: Channel, line: bytes) -> None:
        """Queue one line, given without its newline. Never blocks."""
        with self._changed:
            full = len(self._queue) >= MAX_QUEUED_LINES or self._queued_bytes + len(line) > MAX_QUEUED_BYTES
            if full or self._closing:
                self._dropped[channel] += 1
                return
            self._own_up(channel)
            self._put(channel, line)
            self._changed.notify()

    def error(self, line: str) -> None:
        """Queue one line of text for stderr; the sink for `set_up_logging`."""
        self.write(Channel.ERROR, line.encode("utf-8", "backslashreplace"))

    def close(self, timeout_s: float) -> bool:
        """Refuse further lines and wait for the queued ones; False when the reader did not take them in time."""
        with self._changed:
            for channel in Channel:
                self._own_up(channel)
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _own_up(self, channel: Channel) -> None:
        if self._dropped[channel]:
            self._put(channel, b"(%d lines dropped: nobody read them in time)" % self._dropped[channel])
            self._dropped[channel] = 0

    def _put(self, channel: Channel, line: bytes) -> None:
        self._queue.append((channel, line))
        self._queued_bytes += len(line)

    def _write_all(self) -> None:
        broken: set[Channel] = set()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                batch = list(self._queue)
                self._queue.clear()
                self._queued_bytes = 0
            for channel in Channel:
                text = b"".join(line + b"\n" for of, line in batch if of is channel)
                if text and channel not in broken and not _written(self._streams[channel], text):
                    broken.add(channel)


def _written(stream: BinaryIO, text: bytes) -> bool:
    """Write and flush; False once the reader has gone (`up | head`), which must not end the training."""
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return False
    return True

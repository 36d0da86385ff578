"""Carry a `Stream` inside one process: two pipes with delay and a bounded window; a break loses what is on its way."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from adpsgd_node.errors import StreamBrokenError
from adpsgd_node.net.transport import Stream

__all__ = ["Break", "End", "Item", "MemoryStream", "Passage", "Pipe", "Start"]


@dataclass(frozen=True, slots=True)
class Start:
    """Opens a stream at the answering end."""


@dataclass(frozen=True, slots=True)
class End:
    """The sending end will send nothing more."""


@dataclass(frozen=True, slots=True)
class Break:
    cause: str


Item = bytes | Start | End | Break

Passage = Callable[[int], float | None]
"""Decides over message number n of one pipe: the seconds it takes, or None to break the stream instead."""


class Pipe:
    """One direction of a stream: items in order, at most `window` messages sent and not yet received."""

    def __init__(self, name: str, window: int, passage: Passage, rng: random.Random) -> None:
        self.name = name
        self.on_arrival: Callable[[Item], None] = lambda _: None
        self._window = window
        self._passage = passage
        self._rng = rng
        self._sent = 0
        self._unreceived = 0
        self._travelling: deque[Item] = deque()
        self._due = 0
        self._last_arrival = 0.0
        self._held = False
        self._arrived: deque[Item] = deque()
        self._changed = asyncio.Event()

    @property
    def full(self) -> bool:
        return self._unreceived >= self._window

    def put(self, item: Item) -> bool:
        """Send `item` on its way; False if the link breaks the stream at this message instead."""
        delay = 0.0
        if isinstance(item, bytes):
            passed = self._passage(self._sent)
            if passed is None:
                return False
            delay = passed
            self._sent += 1
            self._unreceived += 1
        loop = asyncio.get_running_loop()
        self._last_arrival = max(self._last_arrival, loop.time() + delay)
        self._travelling.append(item)
        if self._last_arrival <= loop.time():
            self._arrive()
        else:
            loop.call_at(self._last_arrival, self._arrive)
        return True

    def take(self) -> Item | None:
        """Return the next arrived item, if there is one."""
        if not self._arrived:
            return None
        item = self._arrived.popleft()
        if isinstance(item, bytes):
            self._unreceived -= 1
            self.wake()
        return item

    async def change(self) -> None:
        """Wait until something may have arrived, or been received."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        self._changed.set()

    def hold(self) -> None:
        """Let nothing arrive until `release`."""
        self._held = True

    def release(self) -> None:
        self._held = False
        self._deliver()

    def _arrive(self) -> None:
        self._due += 1
        self._deliver()

    def _deliver(self) -> None:
        while self._due and not self._held:
            self._due -= 1
            item = self._travelling.popleft()
            if isinstance(item, Break):
                # a reset overtakes what was not received yet: some of it, all of it or nothing is lost
                while self._arrived and self._rng.random() < 0.5:
                    self._arrived.pop()
            self._arrived.append(item)
            self.on_arrival(item)
        self.wake()


class MemoryStream(Stream):
    """One end; the other end holds the same two pipes the other way round."""

    def __init__(self, outgoing: Pipe, incoming: Pipe, *, answers: bool) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._answers = answers
        self._broken: str | None = None
        """Why this end can neither send nor receive any more."""
        self._unwanted: str | None = None
        """Why the other end takes no more messages."""
        self._peer_ended = False
        self._ended = False
        incoming.on_arrival = self._notice

    async def send(self, message: bytes) -> None:
        assert not self._ended, f"{self._outgoing.name}: send after end"
        self._raise_if_over()
        while self._outgoing.full:
            await self._outgoing.change()
            self._raise_if_over()
        if not self._outgoing.put(message):
            self.break_off("reset")
            self._raise_if_over()
        await asyncio.sleep(0)  # as with a real network, others may run between two messages

    async def receive(self) -> bytes | None:
        while not self._peer_ended:
            if self._broken is not None:
                raise StreamBrokenError(f"{self._incoming.name}: {self._broken}")
            item = self._incoming.take()
            match item:
                case None:
                    await self._wait_for_item()
                case bytes():
                    return item
                case End():
                    self._peer_ended = True
                case Break(cause):
                    self._broken = cause
        return None

    async def end(self) -> None:
        assert not self._answers, f"{self._outgoing.name}: the answering end ends when its handler returns"
        self.finish()

    def finish(self) -> None:
        """Send word that this end has nothing more to send."""
        if not self._ended and self._broken is None:
            self._ended = True
            self._outgoing.put(End())

    def cancel(self) -> None:
        self.break_off("cancelled")

    def break_off(self, cause: str) -> None:
        """Break this end now; the other end learns of it as soon as the link lets it."""
        if self._broken is None:
            self._broken = cause
            self._outgoing.put(Break(cause))
            self._outgoing.wake()
            self._incoming.wake()

    async def _wait_for_item(self) -> None:
        try:
            await self._incoming.change()
        except asyncio.CancelledError:
            self.cancel()  # as in gRPC, where a message may be lost with the read
            raise

    def _notice(self, item: Item) -> None:
        if isinstance(item, Break):
            self._unwanted = item.cause
        elif isinstance(item, End) and not self._answers:
            self._unwanted = "the peer has ended the stream"
        self._outgoing.wake()

    def _raise_if_over(self) -> None:
        cause = self._broken or self._unwanted
        if cause is not None:
            raise StreamBrokenError(f"{self._outgoing.name}: {cause}")

"""Speak with the trainer over the socketpair: attach, go, settle, saved. Passes the plane's descriptor.

A trainer that has forked workers leaves them its end of the socket, so end-of-file says nothing: a pidfd of the
process that attached tells when it is gone.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from adpsgd_node.errors import AdpsgdError, WireError
from adpsgd_node.plane import Plane
from adpsgd_node.telemetry.log import EventLog
from adpsgd_node.wire.trainer import (
    LENGTH_BYTES,
    Attach,
    Attached,
    Failed,
    Go,
    Ready,
    Saved,
    Settle,
    TrainerFrame,
    decode,
    frame_length,
    pack,
)

__all__ = ["LinkHost", "TrainerLink"]

LAST_WORDS_S = 0.5
"""How long to read on after the trainer's end: a process that it forked may keep the stream open for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkHost:
    """What the node does at each stage of a trainer's life. What it raises is sent to the trainer as `Failed`."""

    attach: Callable[[Attach], tuple[Plane, Attached]]
    """Make or reuse the plane."""
    prepare: Callable[[], Awaitable[Go | None]]
    """Bring the run's parameters into `live`; the trainer waits for it, once, before its first step.

    None: the node cannot go on, has said why, and ends.
    """
    stepped: Callable[[], None]
    """One or more steps have been published in the header."""
    settle: Callable[[], None]
    """The trainer has stopped stepping."""
    saved: Callable[[str], None]
    lost: Callable[[TrainerLink], None]
    """The trainer is gone."""


class TrainerLink:
    """The daemon's end of one trainer's control socket."""

    def __init__(self, link: socket.socket, host: LinkHost, attached: Callable[[], None] = lambda: None) -> None:
        self.pid = 0
        """The process that attached; 0 before."""
        self.port = 0
        """Where it listens for the trainers of other nodes, if it does."""
        self._link = link
        self._link.setblocking(False)
        self._host = host
        self._attached = attached
        self._log = EventLog("trainer")
        self._event_fd = -1
        self._gate_fd = -1
        self._pidfd = -1
        self._gone = asyncio.Event()
        self._closed = False

    async def serve(self) -> None:
        """Serve this trainer from attach to its end."""
        reader = asyncio.create_task(self._converse(), name="trainer link")
        gone = asyncio.create_task(self._gone.wait(), name="trainer exit")
        try:
            await asyncio.wait({reader, gone}, return_when=asyncio.FIRST_COMPLETED)
            # What it said last, such as Saved, may still be unread when the news of its end comes.
            await asyncio.wait({reader}, timeout=LAST_WORDS_S)
            if reader.done():
                reader.result()  # surfaces what was not meant to happen
        finally:
            for task in (reader, gone):
                task.cancel()
            await asyncio.gather(reader, gone, return_exceptions=True)
            self.close()

    def close(self) -> None:
        """Give the descriptors back; the trainer counts as gone."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        for fd in (self._event_fd, self._pidfd):
            if fd >= 0:
                loop.remove_reader(fd)
                os.close(fd)
        if self._gate_fd >= 0:
            os.close(self._gate_fd)
        self._link.close()
        if self.pid:
            self._host.stepped()  # what it published last still counts
            self._host.lost(self)

    def wake(self) -> None:
        """Have a trainer that waits for the others look at the plane's header."""
        if self._gate_fd >= 0 and not self._closed:
            os.eventfd_write(self._gate_fd, 1)

    async def send(self, frame: TrainerFrame) -> None:
        """Send one frame; a trainer that is gone is not an error here."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._link, pack(frame))
        except OSError as error:
            self._log.debug("could not reach the trainer", frame=type(frame).__name__, cause=error)

    async def failed(self, error: AdpsgdError) -> None:
        """Tell the trainer why it cannot go on."""
        await self.send(Failed(type(error).__name__, str(error)))

    async def _converse(self) -> None:
        try:
            while (frame := await self._receive()) is not None:
                await self._take(frame)
                if isinstance(frame, Saved):
                    return  # nothing more comes, though the script may go on for as long as it likes
        except AdpsgdError as error:
            self._log.debug("the trainer cannot take part", cause=error)  # the script raises it, for all to see
            await self.failed(error)
        if self.pid:
            await self._gone.wait()

    async def _take(self, frame: TrainerFrame) -> None:
        match frame:
            case Attach() if not self.pid:
                await self._attach(frame)
            case Ready(port):
                self.port = port
                go = await self._host.prepare()
                if go is not None:
                    await self.send(go)
            case Settle():
                self._host.settle()
            case Saved(path):
                self._host.saved(path)
            case _:
                raise WireError(f"the trainer sent {type(frame).__name__} out of turn")

    async def _attach(self, attach: Attach) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._pidfd = os.pidfd_open(attach.pid)
        except OSError as error:
            raise WireError(f"the trainer says it is process {attach.pid}: {error}") from error
        loop.add_reader(self._pidfd, self._on_exit)
        plane, attached = self._host.attach(attach)
        self.pid = attach.pid
        self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._gate_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.add_reader(self._event_fd, self._on_step)
        try:  # a fresh socket takes a frame of a few hundred bytes at once
            socket.send_fds(self._link, [pack(attached)], [plane.fd, self._event_fd, self._gate_fd])
        except OSError as error:
            raise WireError(f"the trainer is gone again: {error.strerror}") from error
        self._attached()

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._gone.set()

    def _on_step(self) -> None:
        try:
            os.eventfd_read(self._event_fd)
        except BlockingIOError:
            return
        self._host.stepped()

    async def _receive(self) -> TrainerFrame | None:
        header = await self._read(LENGTH_BYTES)
        if header is None:
            return None
        body = await self._read(frame_length(header))
        return None if body is None else decode(body)

    async def _read(self, count: int) -> bytes | None:
        """Read exactly `count` bytes; None at the end of the stream."""
        loop, parts, missing = asyncio.get_running_loop(), [], count
        while missing:
            try:
                part = await loop.sock_recv(self._link, min(missing, 1 << 20))
            except OSError:
                return None
            if not part:
                return None
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

"""The trainer's end of the socket to its daemon: frames, descriptors, and whether the daemon still lives.

Only the process that joined uses it. DataLoader workers that it forks inherit the descriptors, which is why the end of
the stream is no proof of anything and a pidfd of the daemon is: it becomes readable when that process ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from adpsgd_node import errors
from adpsgd_node.errors import AdpsgdError, DaemonLostError, WireError
from adpsgd_node.wire.trainer import LENGTH_BYTES, Failed, TrainerFrame, decode, frame_length, pack

__all__ = ["MAX_DESCRIPTORS", "Link"]

MAX_DESCRIPTORS = 3
"""Descriptors that come with `Attached`: the plane, the step event and the gate event."""

MEANWHILE_MS = 200
"""How often a wait looks after what else may be asked."""

_RECEIVE_BYTES = 1 << 16

F = TypeVar("F", bound=TrainerFrame)


class Link:
    """One connection to the daemon. Takes the socket over."""

    def __init__(self, daemon: socket.socket, diagnose: Callable[[], str] | None = None) -> None:
        """`diagnose` says more about a daemon that is gone, e.g. how it exited."""
        self._socket = daemon
        self._socket.setblocking(False)
        self._diagnose = diagnose
        self._received = bytearray()
        self._descriptors: list[int] = []
        self._pidfd = -1
        self._idle = select.poll()
        self._idle.register(daemon, select.POLLIN)

    @classmethod
    def adopt(cls, fd: int) -> Link:
        """Take over an inherited descriptor. Raises `DaemonLostError` when it is not the socket it should be."""
        try:
            # A new number for it: a second join() of this process finds the old one closed and says so.
            daemon = socket.socket(fileno=os.dup(fd))
            if daemon.family != socket.AF_UNIX:
                raise OSError(errno.ENOTSOCK, "not a unix socket")
            os.close(fd)
        except OSError as error:
            raise DaemonLostError(
                f"descriptor {fd}, named by ADPSGD_TRAINER_FD, does not lead to a daemon ({error.strerror}): "
                "call join() once, in the process that `adpsgd-node up` started, or unset the variable"
            ) from error
        return cls(daemon)

    def watch(self, daemon_pid: int) -> None:
        """Judge from now on by process `daemon_pid` whether the daemon lives."""
        try:
            self._pidfd = os.pidfd_open(daemon_pid)
        except OSError:
            raise self._lost() from None
        self._idle.register(self._pidfd, select.POLLIN)

    def take_descriptors(self) -> list[int]:
        """Give the descriptors that came so far; the caller closes them."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def check(self) -> None:
        """Raise `DaemonLostError` when the daemon is gone, or what it says was wrong. Never waits."""
        if self._idle.poll(0):
            self._raise_if_gone()
            frame = self._next_frame()
            if frame is not None:
                raise self._unexpected(frame)

    def send(self, frame: TrainerFrame) -> None:
        """Send one frame, waiting for room while the daemon lives."""
        rest = memoryview(pack(frame))
        while rest:
            try:
                rest = rest[self._socket.send(rest, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, None)
            except OSError:
                raise self._lost() from None

    def receive(self, kind: type[F], timeout_s: float | None, meanwhile: Callable[[], None] | None = None) -> F:
        """Wait for a frame of `kind`; with `timeout_s` None the daemon's life is the limit of the wait.

        `meanwhile` is called now and then until it comes, in a wait without a time limit.
        Raises `DaemonLostError`, or the error that the daemon sent instead.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (frame := self._next_frame()) is None:
            if meanwhile is not None and deadline is None and not self._idle.poll(MEANWHILE_MS):
                meanwhile()
            else:
                self._wait(select.POLLIN, deadline)
        if not isinstance(frame, kind):
            raise self._unexpected(frame)
        return frame

    def close(self) -> None:
        """Close all descriptors; may be repeated."""
        self._socket.close()
        for fd in (*self.take_descriptors(), self._pidfd):
            if fd >= 0:
                os.close(fd)
        self._pidfd = -1

    def _wait(self, events: int, deadline: float | None) -> None:
        """Wait until the socket is ready; a signal handler may raise out of here, nothing is lost then."""
        poll = select.poll()
        poll.register(self._socket, events)
        if self._pidfd >= 0:
            poll.register(self._pidfd, select.POLLIN)
        remaining_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = {fd for fd, _ in poll.poll(remaining_ms)}
        if self._socket.fileno() in ready:
            return  # first: a daemon may send why it ends, and then end
        if ready:
            raise self._lost()
        raise DaemonLostError(
            f"the daemon did not answer in time{self._diagnosis()}: look at its log, and start the node again"
        )

    def _next_frame(self) -> TrainerFrame | None:
        """Take one whole frame from what has come; None when there is none yet."""
        while (length := self._complete_length()) is None:
            try:
                part, descriptors, _, _ = socket.recv_fds(
                    self._socket, _RECEIVE_BYTES, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return None
            except OSError:
                raise self._lost() from None
            self._descriptors.extend(descriptors)
            if not part:
                raise self._lost()
            self._received += part
        frame = decode(bytes(self._received[LENGTH_BYTES : LENGTH_BYTES + length]))
        del self._received[: LENGTH_BYTES + length]
        return frame

    def _complete_length(self) -> int | None:
        if len(self._received) < LENGTH_BYTES:
            return None
        length = frame_length(bytes(self._received[:LENGTH_BYTES]))
        return length if len(self._received) >= LENGTH_BYTES + length else None

    def _raise_if_gone(self) -> None:
        if self._pidfd >= 0 and self._exited():
            with contextlib.suppress(DaemonLostError):  # what it sent last says why, if it sent anything
                frame = self._next_frame()
                if frame is not None:
                    raise self._unexpected(frame)
            raise self._lost()

    def _exited(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _unexpected(self, frame: TrainerFrame) -> AdpsgdError:
        """Turn a frame that should not come now into the error it stands for."""
        if not isinstance(frame, Failed):
            return WireError(f"the daemon sent {type(frame).__name__} out of turn: run one version of adpsgd-node")
        kind = getattr(errors, frame.code, None)
        if isinstance(kind, type) and issubclass(kind, AdpsgdError):
            return kind(frame.detail)
        return AdpsgdError(frame.detail)

    def _lost(self) -> DaemonLostError:
        return DaemonLostError(
            f"this node's daemon is gone{self._diagnosis()}: its log says why; start the node again with "
            "`adpsgd-node up`, it takes the parameters from its peers or its checkpoint"
        )

    def _diagnosis(self) -> str:
        return f" ({text})" if self._diagnose and (text := self._diagnose()) else ""

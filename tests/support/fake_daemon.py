"""The daemon's end of a trainer's link, in a thread of the test's own process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from adpsgd_node.ids import RunId
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.wire.trainer import (
    LENGTH_BYTES,
    Agreed,
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

JOIN_LIMIT_S = 20.0


@dataclass
class FakeDaemon:
    """Answers a trainer as the protocol says; `start` gives the descriptor to pass as ADPSGD_TRAINER_FD."""

    chunk_bytes: int = 64
    output: str = ""
    daemon_pid: int = field(default_factory=os.getpid)
    plane: Plane | None = None
    """One that an earlier trainer left: then the trainer is told to resume."""
    adopt: Callable[[Plane], None] | None = None
    """Writes a peer's parameters to `live` before Go."""
    refuse_attach: Failed | None = None
    refuse_go: Failed | None = None
    refuse_agreement: Failed | None = None
    before_agreed: Callable[[Plane], None] | None = None
    """What happens between Settle and Agreed, e.g. last exchanges."""
    descriptors_sent: int = 3
    state_folder: str = ""
    """Where the trainer is to write its part of a checkpoint."""
    restore: str = ""
    """The trainer's part of a checkpoint, to go on from."""
    slow_factor: float = 1.0
    emulate_step_s: float = 0.0

    def start(self) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._prepare(ours)
        self._thread = threading.Thread(target=self._serve, name="fake daemon")
        self._thread.start()
        return theirs.detach()

    def serve(self, ours: socket.socket) -> None:
        """Serve one trainer in this thread, until it closes its end."""
        self._prepare(ours)
        self._serve()

    def join(self) -> None:
        """Wait until the trainer has closed its end."""
        self._thread.join(JOIN_LIMIT_S)
        assert not self._thread.is_alive(), "the trainer did not close the link"

    def send(self, frame: TrainerFrame) -> None:
        self._ours.sendall(pack(frame))

    def hang_up(self) -> None:
        self._ours.shutdown(socket.SHUT_RDWR)

    def steps(self) -> int:
        """Steps that the trainer told of since the last call."""
        try:
            return os.eventfd_read(self.step_event)
        except BlockingIOError:
            return 0

    def frame(self, kind: type[TrainerFrame]) -> TrainerFrame:
        return next(frame for frame in self.frames if isinstance(frame, kind))

    def _prepare(self, ours: socket.socket) -> None:
        self._ours = ours
        self.frames: list[TrainerFrame] = []
        self.step_event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.gate_event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def _serve(self) -> None:
        with self._ours:
            while (frame := self._receive()) is not None:
                self.frames.append(frame)
                match frame:
                    case Attach():
                        self._attach(frame)
                    case Ready():
                        self._go()
                    case Settle():
                        self._agree()
                    case Saved():
                        pass

    def _attach(self, attach: Attach) -> None:
        if self.refuse_attach:
            self.send(self.refuse_attach)
            return
        resumed = self.plane is not None
        layout = Layout.build(attach.tensors, self.chunk_bytes)
        if self.plane is None:
            self.plane = Plane.create(layout)
        attached = Attached(
            daemon_pid=self.daemon_pid,
            node="n0",
            run_id=RunId("test-run"),
            schema=self.plane.layout.schema,
            chunk_bytes=self.chunk_bytes,
            resumed=resumed,
            output=self.output,
            state_folder=self.state_folder,
            slow_factor=self.slow_factor,
            emulate_step_s=self.emulate_step_s,
        )
        message, fds = pack(attached), [self.plane.fd, self.step_event, self.gate_event]
        # In two parts: the trainer must neither take the first for a whole frame nor lose the descriptors.
        socket.send_fds(self._ours, [message[:3]], fds[: self.descriptors_sent])
        self._ours.sendall(message[3:])

    def _go(self) -> None:
        if self.refuse_go:
            self.send(self.refuse_go)
            return
        if self.adopt:
            assert self.plane is not None
            self.adopt(self.plane)
        self.send(Go(adopted=self.adopt is not None, donor="n1" if self.adopt else "", restore=self.restore))

    def _agree(self) -> None:
        assert self.plane is not None
        if self.refuse_agreement:
            self.send(self.refuse_agreement)
            return
        if self.before_agreed:
            self.before_agreed(self.plane)
        self.send(Agreed(consensus_distance=1e-4, steps_total=30, samples_total=960, members=3))

    def _receive(self) -> TrainerFrame | None:
        prefix = self._read(LENGTH_BYTES)
        if prefix is None:
            return None
        body = self._read(frame_length(prefix))
        return None if body is None else decode(body)

    def _read(self, count: int) -> bytes | None:
        read = b""
        while len(read) < count:
            try:
                part = self._ours.recv(count - len(read))
            except OSError:
                return None
            if not part:
                return None
            read += part
        return read

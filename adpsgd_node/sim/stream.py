"""Carry a stream between two processes as TCP does: in order, late, and now and then not at all.

A message that is lost is sent again, and holds up those behind it, until the sender gives up. A stream that breaks is
noticed by each end at a time of its own, or by none of its doing: what was under way may be lost or arrive after all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adpsgd_node.core.exchange.frame import Frame
from adpsgd_node.core.exchange.initiator import StreamBroke, StreamEnded
from adpsgd_node.ids import Address
from adpsgd_node.sim.process import Process

if TYPE_CHECKING:
    from adpsgd_node.sim.transport import Transport

__all__ = ["LATEST_REPLAY_S", "Stream", "StreamEnd", "StreamEvent", "StreamFaults"]

FIRST_RESEND_S = 0.2
LARGEST_RESEND_S = 0.4
GIVE_UP_S = 15.0
"""A sender whose message was not delivered for so long breaks its stream, in seconds."""
LATEST_NOTICE_S = 1.0
"""An end that notices the breaking of a stream at all does so within this time, in seconds."""
LATEST_STRAGGLER_S = 3.0
"""What was under way when a stream was torn arrives at most so late, if at all, in seconds."""
LATEST_REPLAY_S = 5.0
"""A stream or call is sent once more by a proxy at most so long after it was broken, in seconds."""

StreamEvent = Frame | StreamEnded | StreamBroke


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFaults:
    """How often streams break by themselves."""

    reset: float = 0.0
    """Probability that a message tears its stream, instead of arriving."""
    unnoticed: float = 0.2
    """Probability that one end of a torn stream is not told."""
    replay: float = 0.0
    """Probability that a torn stream's frames, or a call, are delivered a second time, as retries of a proxy do."""


class StreamEnd:
    """One end of a stream. Its owner sets `take`, which gets every frame, and last `StreamEnded` or `StreamBroke`."""

    def __init__(self, stream: Stream, process: Process | None, address: Address) -> None:
        self.address = address
        self.process = process
        self.take: Callable[[StreamEvent], None] = lambda _event: None
        self.open = True
        self.finished = False
        """Closed in good order: what still comes in is of no interest, and is not answered with a reset."""
        self.backlog: deque[StreamEvent] = deque()
        self.last_arrival = 0.0
        self.stalled_since = 0.0
        self.stream = stream

    def send(self, event: Frame) -> None:
        """Send one frame."""
        self.stream.send(self, event)

    def finish(self) -> None:
        """Say that no more comes, in order."""
        self.stream.send(self, StreamEnded())

    def close(self) -> None:
        """Say that no more comes, and read nothing more (the serving end)."""
        self.finish()
        self._shut()
        self.finished = True

    def cancel(self) -> None:
        """Break the stream off; the other end is told, unless that is lost."""
        if self.open:
            self._shut()
            self.backlog.clear()
            self.stream.tell_broken(self)

    def abandon(self) -> None:
        """End with the process."""
        self.open = False
        self.backlog.clear()

    def receive(self, event: StreamEvent) -> None:
        """Read one thing that has come."""
        if not self.open:
            if not self.finished and not isinstance(event, StreamBroke):
                self.stream.tell_broken(self)  # as a closed socket answers
            return
        if isinstance(event, StreamBroke) or (isinstance(event, StreamEnded) and self.stream.is_caller(self)):
            self._shut()
        self.take(event)

    def _shut(self) -> None:
        self.open = False
        if self.process is not None:
            self.process.ends.pop(self, None)


class Stream:
    """Both ends of one stream, and what is under way between them."""

    def __init__(self, transport: Transport, caller: Process | None, source: Address, target: Address) -> None:
        self._transport = transport
        self._caller = StreamEnd(self, caller, source)
        self._server = StreamEnd(self, None, target)
        self._said: list[StreamEvent] = []
        self._torn = False
        self._lost = False
        """Torn so that what was under way is lost too."""

    @property
    def caller(self) -> StreamEnd:
        return self._caller

    def is_caller(self, end: StreamEnd) -> bool:
        return end is self._caller

    def send(self, end: StreamEnd, event: StreamEvent) -> None:
        if not end.open or self._torn:
            return
        transport = self._transport
        if transport.faults.reset and transport.rng.random() < transport.faults.reset:
            self.tear()
            transport.clock.after(transport.rng.uniform(0.0, LATEST_STRAGGLER_S), self._arrive, self._other(end), event)
            return
        if end is self._caller:
            self._said.append(event)
        if end.backlog or not self._transmit(end, event):
            self._hold(end, event)

    def replay(self, said: Sequence[StreamEvent]) -> None:
        """Deliver frames that were said on another stream; nobody reads the answers."""
        self._caller.open = False
        self._caller.finished = True
        for event in said:
            if not self._transmit(self._caller, event):
                return  # in order or not at all
        self.tell_broken(self._caller)

    def tear(self) -> None:
        """Break the stream between its ends."""
        if self._torn:
            return
        self._torn = True
        rng, faults = self._transport.rng, self._transport.faults
        self._lost = rng.random() < 0.5
        for end in (self._caller, self._server):
            if rng.random() >= faults.unnoticed:
                self._transport.clock.after(rng.uniform(0.0, LATEST_NOTICE_S), self._notice, end, "connection reset")
        if faults.replay and rng.random() < faults.replay:
            self._transport.clock.after(
                rng.uniform(0.0, LATEST_REPLAY_S), self._transport.replay, self._server.address, self._said
            )

    def tell_broken(self, end: StreamEnd) -> None:
        """Let the other end know that this one is closed: behind what was sent, or overtaking it."""
        other = self._other(end)
        transit_s = self._transport.transit_s(end.address, other.address)
        if self._torn or transit_s is None:
            return
        arrival = self._transport.clock.now + transit_s
        if self._transport.rng.random() < 0.5:
            arrival = max(arrival, other.last_arrival)
        self._transport.clock.at(arrival, self._notice, other, "reset by the peer")

    def _other(self, end: StreamEnd) -> StreamEnd:
        return self._server if end is self._caller else self._caller

    def _transmit(self, end: StreamEnd, event: StreamEvent) -> bool:
        other = self._other(end)
        transit_s = self._transport.transit_s(end.address, other.address)
        if transit_s is None:
            return False
        clock = self._transport.clock
        other.last_arrival = max(other.last_arrival, clock.now + transit_s)
        clock.at(other.last_arrival, self._arrive, other, event)
        return True

    def _hold(self, end: StreamEnd, event: StreamEvent) -> None:
        if not end.backlog:
            end.stalled_since = self._transport.clock.now
            self._transport.clock.after(FIRST_RESEND_S, self._resend, end, FIRST_RESEND_S)
        end.backlog.append(event)

    def _resend(self, end: StreamEnd, pause_s: float) -> None:
        if self._torn:
            return
        while end.backlog and self._transmit(end, end.backlog[0]):
            end.backlog.popleft()
        if not end.backlog:
            return
        if self._transport.clock.now - end.stalled_since > GIVE_UP_S:
            end.backlog.clear()
            self._notice(end, "nothing gets through")
            return
        pause_s = min(LARGEST_RESEND_S, 2 * pause_s)
        self._transport.clock.after(pause_s, self._resend, end, pause_s)

    def _arrive(self, end: StreamEnd, event: StreamEvent) -> None:
        if self._lost:
            return
        if end.process is None and not self._connect(end):
            return
        process = end.process
        assert process is not None
        if process.running:
            process.hand(end.receive, event)
        elif not process.vanished:
            self.tell_broken(end)

    def _connect(self, end: StreamEnd) -> bool:
        process = self._transport.process_at(end.address)
        if end is self._caller or process is None:
            return False
        if process.life.outbound_only:
            self._transport.dialed += 1
        if not process.running or process.life.outbound_only:
            if not process.vanished:
                self.tell_broken(end)
            return False
        end.process = process
        process.ends[end] = None
        process.hand(process.accept, end)
        return True

    def _notice(self, end: StreamEnd, cause: str) -> None:
        if end.process is not None:
            end.process.hand(end.receive, StreamBroke(cause))

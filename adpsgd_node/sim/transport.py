"""Join the processes of a simulation: streams between them, and calls from one to another."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adpsgd_node.core.exchange.frame import Settle, Settled
from adpsgd_node.ids import Address
from adpsgd_node.sim.clock import Clock
from adpsgd_node.sim.network import Network
from adpsgd_node.sim.process import Process
from adpsgd_node.sim.stream import LATEST_REPLAY_S, Stream, StreamEnd, StreamEvent, StreamFaults

__all__ = ["Transport"]


class Transport:
    """What joins the processes of a simulation."""

    def __init__(
        self,
        clock: Clock,
        network: Network,
        rng: random.Random,
        process_at: Callable[[Address], Process | None],
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.faults = StreamFaults()
        self.process_at = process_at
        self.messages = 0
        """Frames, notices and calls given to the network."""
        self.dialed = 0
        """Streams and calls to a member that cannot be called."""
        self._network = network

    def open(self, caller: Process, target: Address) -> StreamEnd:
        """Open a stream; whether anyone is there shows later."""
        end = Stream(self, caller, caller.life.address, target).caller
        caller.ends[end] = None
        return end

    def tear(self, process: Process) -> int:
        """Tear all streams of a process; return how many."""
        ends = list(process.ends)
        for end in ends:
            end.stream.tear()
        return len(ends)

    def crash(self, process: Process, *, vanish: bool) -> None:
        """End a process: its machine tells the other ends, unless it went too."""
        process.vanished = vanish
        for end in list(process.ends):
            if not vanish:
                end.stream.tell_broken(end)
            end.abandon()
        process.ends.clear()

    def replay(self, target: Address, said: Sequence[StreamEvent]) -> None:
        """Deliver frames a second time, on a stream of their own that nobody reads."""
        Stream(self, None, target, target).replay(said)

    def call(
        self,
        caller: Process,
        target: Address,
        request: Settle,
        timeout_s: float,
        answered: Callable[[Settled | None], None],
    ) -> None:
        """Call a peer, and hand over its answer, or None when none came in time."""
        call = _Call(caller, answered)
        caller.after(timeout_s, call.end, None)
        copies = 2 if self.faults.replay and self.rng.random() < self.faults.replay else 1
        for copy in range(copies):
            transit_s = self.transit_s(caller.life.address, target)
            if transit_s is not None:
                late_s = self.rng.uniform(0.0, LATEST_REPLAY_S) if copy else 0.0
                self.clock.after(transit_s + late_s, self._serve, call, target, request)

    def transit_s(self, source: Address, target: Address) -> float | None:
        """Take one message: return the seconds it is under way, None when it is lost."""
        self.messages += 1
        link = self._network.way(source, target)
        if link is None or self.rng.random() < link.loss:
            return None
        return link.delay_min_s + (link.delay_max_s - link.delay_min_s) * self.rng.random()

    def _serve(self, call: _Call, target: Address, request: Settle) -> None:
        process = self.process_at(target)
        if process is None:
            return
        self.dialed += process.life.outbound_only
        if process.running and not process.life.outbound_only:
            process.hand(self._answer, call, process, request)
        elif not process.vanished:
            self._return(call, target, None)

    def _answer(self, call: _Call, process: Process, request: Settle) -> None:
        assert process.settle is not None
        self._return(call, process.life.address, process.settle(request))

    def _return(self, call: _Call, source: Address, answer: Settled | None) -> None:
        transit_s = self.transit_s(source, call.caller.life.address)
        if transit_s is not None:
            self.clock.after(transit_s, call.caller.hand, call.end, answer)


@dataclass(slots=True)
class _Call:
    caller: Process
    answered: Callable[[Settled | None], None]
    over: bool = False

    def end(self, answer: Settled | None) -> None:
        if not self.over:
            self.over = True
            self.answered(answer)

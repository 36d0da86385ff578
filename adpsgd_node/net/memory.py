"""Connect many nodes inside one process, deterministically, with faults on demand.

Runs on any asyncio event loop, a virtual clock included: time comes from the loop, randomness from the seed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass

from adpsgd_node.errors import BindError
from adpsgd_node.ids import Address
from adpsgd_node.net.fault import LinkFault
from adpsgd_node.net.memory_stream import Item, MemoryStream, Passage, Pipe, Start
from adpsgd_node.net.memory_transport import MemoryTransport
from adpsgd_node.net.transport import StreamMethod

__all__ = ["MemoryNetwork"]


@dataclass(frozen=True, slots=True, eq=False)
class _Connection:
    caller: Address
    answerer: Address
    caller_end: MemoryStream
    answer_end: MemoryStream
    forward: Pipe
    backward: Pipe

    def pipe(self, source: Address, target: Address) -> Pipe | None:
        if (source, target) == (self.caller, self.answerer):
            return self.forward
        return self.backward if (source, target) == (self.answerer, self.caller) else None


class MemoryNetwork:
    """All links between the nodes of one process."""

    def __init__(self, seed: int = 0, *, window: int = 8, keepalive_s: float = 30.0) -> None:
        """`window`: messages a stream holds per direction; `keepalive_s`: how long a stream survives a cut link."""
        self.rng = random.Random(seed)
        self._window = window
        self._keepalive_s = keepalive_s
        self._default = LinkFault()
        self._faults: dict[tuple[Address, Address], LinkFault] = {}
        self._cuts: dict[tuple[Address, Address], asyncio.TimerHandle] = {}
        self._nodes: dict[Address, MemoryTransport] = {}
        self._connections: dict[_Connection, None] = {}  # a dict keeps its order: a set would not be deterministic

    def transport(self, address: Address) -> MemoryTransport:
        """Return a new node's face to this network."""
        return MemoryTransport(self, address)

    def set_fault(self, fault: LinkFault, source: Address | None = None, target: Address | None = None) -> None:
        """Let `fault` hold from `source` to `target`; without them, on all links that have none of their own."""
        if source is None or target is None:
            self._default = fault
        else:
            self._faults[source, target] = fault

    def cut(self, source: Address, target: Address) -> None:
        """Let nothing pass from `source` to `target` (the other way stays open) until `heal`."""
        link = source, target
        if link not in self._cuts:
            loop = asyncio.get_running_loop()
            self._cuts[link] = loop.call_later(self._keepalive_s, self._give_up, source, target)
            for pipe in self._pipes(source, target):
                pipe.hold()

    def heal(self, source: Address, target: Address) -> None:
        timer = self._cuts.pop((source, target), None)
        if timer is not None:
            timer.cancel()
            for pipe in self._pipes(source, target):
                pipe.release()

    def break_streams(self, node: Address | None = None, cause: str = "reset") -> int:
        """Break every open stream, or those of `node`; returns how many there were."""
        broken = [each for each in self._connections if node is None or node in (each.caller, each.answerer)]
        for connection in broken:
            self._break(connection, cause)
        return len(broken)

    def crash(self, node: Address) -> None:
        """Make a node vanish as SIGKILL does: its handlers stop where they are, its streams break."""
        transport = self._nodes.pop(node, None)
        if transport is not None:
            transport.vanish()
        self.break_streams(node)

    def fault(self, source: Address, target: Address) -> LinkFault:
        return self._faults.get((source, target), self._default)

    def delay_s(self, source: Address, target: Address) -> float:
        fault = self.fault(source, target)
        return self.rng.uniform(fault.delay_min_s, fault.delay_max_s)

    async def carry(self, source: Address, target: Address) -> bool:
        """Let one unary message travel; False if it is lost."""
        await asyncio.sleep(self.delay_s(source, target))  # its time on the way, as the link's fault says
        return (source, target) not in self._cuts and self.rng.random() >= self.fault(source, target).call_loss

    def node(self, address: Address) -> MemoryTransport | None:
        return self._nodes.get(address)

    def attach(self, transport: MemoryTransport) -> None:
        if transport.address in self._nodes:
            raise BindError(f"cannot listen on {transport.address}: in use. Choose another with --listen host:port.")
        self._nodes[transport.address] = transport

    def detach(self, transport: MemoryTransport) -> None:
        if self._nodes.get(transport.address) is transport:
            del self._nodes[transport.address]

    def connect(self, caller: Address, answerer: Address, method: StreamMethod) -> MemoryStream:
        """Open a stream; the peer's handler starts when the opening arrives there."""
        forward = self._pipe(caller, answerer, method)
        backward = self._pipe(answerer, caller, method)
        caller_end = MemoryStream(forward, backward, answers=False)
        answer_end = MemoryStream(backward, forward, answers=True)
        connection = _Connection(caller, answerer, caller_end, answer_end, forward, backward)
        self._connections[connection] = None
        notice = forward.on_arrival

        def arrive(item: Item) -> None:
            notice(item)
            if isinstance(item, Start):
                forward.take()
                self._answer(connection, method)

        forward.on_arrival = arrive
        for pipe, link in ((forward, (caller, answerer)), (backward, (answerer, caller))):
            if link in self._cuts:
                pipe.hold()
        forward.put(Start())
        return caller_end

    def _answer(self, connection: _Connection, method: StreamMethod) -> None:
        node = self._nodes.get(connection.answerer)
        if node is None:
            self._break(connection, f"nobody listens on {connection.answerer}")
        else:
            node.answer(method, connection.answer_end, lambda: self._connections.pop(connection, None))

    def _pipe(self, source: Address, target: Address, method: StreamMethod) -> Pipe:
        return Pipe(f"{method.value} {source} to {target}", self._window, self._passage(source, target), self.rng)

    def _passage(self, source: Address, target: Address) -> Passage:
        def passage(number: int) -> float | None:
            fault = self.fault(source, target)
            if number == fault.reset_at or self.rng.random() < fault.stream_reset:
                return None
            return self.delay_s(source, target)

        return passage

    def _pipes(self, source: Address, target: Address) -> Iterator[Pipe]:
        for connection in list(self._connections):
            pipe = connection.pipe(source, target)
            if pipe is not None:
                yield pipe

    def _give_up(self, source: Address, target: Address) -> None:
        """Break the streams that a cut link has stalled, as keepalive does at both ends."""
        for connection in list(self._connections):
            if connection.pipe(source, target) is not None:
                self._break(connection, "keepalive: no answer")
        loop = asyncio.get_running_loop()
        self._cuts[source, target] = loop.call_later(self._keepalive_s, self._give_up, source, target)

    def _break(self, connection: _Connection, cause: str) -> None:
        connection.caller_end.break_off(cause)
        connection.answer_end.break_off(cause)
        self._connections.pop(connection, None)

"""Run D-PSGD's rounds: carry out what `core.algorithms.d_psgd` decides, and let the trainer's next step pass."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from adpsgd_node.core.algorithms.d_psgd import (
    Action,
    Admit,
    Asked,
    DPsgd,
    Event,
    InboundEnded,
    Mixed,
    NeighborsChanged,
    Open,
    OutboundEnded,
    Paused,
    Resumed,
    Stepped,
    Withdrawn,
)
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.daemon.driver import Driver
from adpsgd_node.ids import NodeId

__all__ = ["MAX_NEIGHBORS", "Around", "Rounds"]

MAX_NEIGHBORS = 256
"""Inbound exchanges of one round at most; a topology with more edges at a node is refused by its neighbors as busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the rounds ask of the rest of the node."""

    open: Callable[[str], None]
    """Begin an exchange with a neighbor, and tell `opened` how it ended."""
    freeze: Callable[[bool], None]
    """Average what the trainer has published, without what a round has brought so far."""
    mixed: Callable[[int], None]
    """The trainer may take in what the round after a step brought, and go on."""


class Rounds:
    """The rounds of one node; between `resume` and `pause` its trainer steps."""

    def __init__(self, rng: random.Random, around: Around) -> None:
        self._around = around
        self._weights: Mapping[str, float] = {}
        self._asking: dict[str, deque[asyncio.Future[None]]] = {}
        self._driver: Driver[Event, Action] = Driver(DPsgd(rng), self._do)
        self._closed = False

    def close(self) -> None:
        """Open no exchange any more; whoever waits is let in, so that it ends."""
        self.pause()
        self._driver.close()
        self._closed = True

    def resume(self) -> None:
        """Note that a trainer steps from now on."""
        self._around.freeze(True)
        self._driver.post(Resumed())

    def stepped(self, step: int) -> None:
        """Note that the trainer has done so many steps and waits for the round after the last one."""
        self._driver.post(Stepped(step))

    def pause(self) -> None:
        """Note that no trainer steps any more."""
        self._around.freeze(False)
        self._driver.post(Paused())

    def meet(self, weights: Mapping[str, float], opened_here: frozenset[str]) -> None:
        """Take in who the neighbors are, with their weights, and to which of them this node opens."""
        self._weights = weights
        self._driver.post(NeighborsChanged(tuple(sorted(weights)), opened_here))

    def opened(self, peer: str, outcome: Outcome) -> None:
        """Take in how an exchange that was begun here has ended."""
        self._driver.post(OutboundEnded(peer, outcome))

    @contextlib.asynccontextmanager
    async def admission(self, peer: NodeId) -> AsyncIterator[None]:
        """Wait until a peer's exchange may go on; it goes on within."""
        if self._closed:
            yield
            return
        admitted = asyncio.get_running_loop().create_future()
        self._asking.setdefault(peer.name, deque()).append(admitted)
        self._driver.post(Asked(peer.name))
        try:
            await admitted
        except asyncio.CancelledError:
            self._withdraw(peer.name, admitted)
            raise
        try:
            yield
        finally:
            self._driver.post(InboundEnded(peer.name))

    def share(self, peer: NodeId) -> float:
        """Return twice the weight of a peer, as the float32 that travels to it."""
        share: float = struct.unpack("<f", struct.pack("<f", min(1.0, 2.0 * self._weights.get(peer.name, 0.5))))[0]
        return share

    def _withdraw(self, name: str, admitted: asyncio.Future[None]) -> None:
        if admitted in self._asking.get(name, ()):
            self._asking[name].remove(admitted)
            self._driver.post(Withdrawn(name))
        else:  # it was let in at the same moment
            self._driver.post(InboundEnded(name))

    def _do(self, action: Action) -> None:
        match action:
            case Open(peer):
                self._around.open(peer)
            case Admit(peer):
                waiting = self._asking[peer]
                admitted = waiting.popleft()
                if not waiting:
                    del self._asking[peer]
                if not admitted.cancelled():  # else the one who waited for it says so
                    admitted.set_result(None)
            case Mixed(step):
                self._around.mixed(step)

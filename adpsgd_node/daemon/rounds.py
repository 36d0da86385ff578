"""Run D-PSGD's rounds: carry out what `core.algorithms.d_psgd` decides, and let the trainer's next step pass."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from adpsgd_node.core.algorithms.d_psgd import (
    Action,
    Admit,
    Asked,
    CutShort,
    DPsgd,
    Event,
    InboundEnded,
    Mixed,
    NeighborRenewed,
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
from adpsgd_node.daemon.surroundings import DeclinedError
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
        self._asking: dict[int, asyncio.Future[None]] = {}
        self._tickets = itertools.count(1)
        self._policy = DPsgd(rng)
        self._driver: Driver[Event, Action] = Driver(self._policy, self._do)
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

    def meet(self, weights: Mapping[str, float], opened_here: frozenset[str], never_called: frozenset[str]) -> None:
        """Take in who the neighbors are, with their weights, to which of them this node opens, and who must open."""
        self._weights = weights
        self._driver.post(NeighborsChanged(tuple(sorted(weights)), opened_here, never_called))

    def renewed(self, name: str) -> None:
        """Note that another boot of a neighbor runs now."""
        self._driver.post(NeighborRenewed(name))

    def cut_short(self, name: str) -> None:
        """Note that a neighbor ended the exchange that it had opened before its time."""
        self._driver.post(CutShort(name))

    @property
    def round(self) -> int:
        """The round this node is in; 0: none."""
        return self._policy.round

    def opened(self, peer: str, outcome: Outcome, round_: int) -> None:
        """Take in how an exchange that was begun here has ended, and in which round the peer was."""
        self._driver.post(OutboundEnded(peer, outcome, round_))

    @contextlib.asynccontextmanager
    async def admission(self, peer: NodeId, round_: int) -> AsyncIterator[None]:
        """Wait until the exchange of a peer, which is in that round, may go on; it goes on within.

        What raises `DeclinedError` within has not gone on.
        """
        if self._closed:
            yield
            return
        ticket = next(self._tickets)
        admitted = self._asking[ticket] = asyncio.get_running_loop().create_future()
        self._driver.post(Asked(ticket, peer.name, round_))
        try:
            await admitted
        except asyncio.CancelledError:  # it may have been let in at the same moment
            self._driver.post(
                InboundEnded(ticket, began=False) if self._asking.pop(ticket, None) is None else Withdrawn(ticket)
            )
            raise
        began = True
        try:
            yield
        except DeclinedError:
            began = False
            raise
        finally:
            self._driver.post(InboundEnded(ticket, began))

    def share(self, peer: NodeId) -> float:
        """Return twice the weight of a peer, as the float32 that travels to it."""
        share: float = struct.unpack("<f", struct.pack("<f", min(1.0, 2.0 * self._weights.get(peer.name, 0.5))))[0]
        return share

    def _do(self, action: Action) -> None:
        match action:
            case Open(peer):
                self._around.open(peer)
            case Admit(ticket):
                admitted = self._asking.pop(ticket)
                if not admitted.cancelled():  # else the one who waited for it says so
                    admitted.set_result(None)
            case Mixed(step):
                self._around.mixed(step)

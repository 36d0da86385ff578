"""Say what the exchanges of a node ask of the rest of its daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from adpsgd_node.core.exchange.journal import ExchangeKey
from adpsgd_node.core.exchange.outcome import Role, SettleEnd
from adpsgd_node.core.exchange.quarantine import Sentence
from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.ids import Address, NodeId

__all__ = ["DeclinedError", "Surroundings"]


class DeclinedError(Exception):
    """Raised within an admission: the exchange does not go on after all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the engine asks of the rest of the daemon; each call returns at once."""

    address_of: Callable[[NodeId], Address | None]
    """Where a member is now; None while it is dead, and once it has left or runs as another boot."""
    progress: Callable[[], tuple[ProgressEntry, ...]]
    """News of the run's counters to send along."""
    report: Callable[[ExchangeReport], None]
    poisoned: Callable[[int], None]
    """Told when this node's own chunk turns out not to be finite."""
    settled: Callable[[SettleEnd], None]
    """Told how each settling ended, for the metrics."""
    kept: Callable[[Role, ExchangeKey, int], None] = lambda *_: None
    """Told how many chunks of an exchange stay applied on this side, once that is certain."""
    sentenced: Callable[[Sentence], None] = lambda _: None
    """Told when a peer was put into quarantine."""
    round: Callable[[], int] = lambda: 0
    """In which round of D-PSGD this node is; 0: in none."""
    admission: Callable[[NodeId, int], AbstractAsyncContextManager[None]] = lambda *_: contextlib.nullcontext()
    """Entered for an inbound exchange of a peer in some round as soon as it may go on, and left when it has ended."""
    share: Callable[[NodeId], float] = lambda _: 1.0
    """Which part of the difference is applied with a peer: twice its weight, a float32 above 0 and at most 1."""

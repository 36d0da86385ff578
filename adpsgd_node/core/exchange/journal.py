"""Remember what a responder applied until the initiator is known to have applied its half (invariant 2).

An entry lives from `open` to `end` (a clean one) or `settle` (after a broken stream). Both bar the exchange's id and
all lower ones of that initiator's boot: ids grow and an initiator runs one exchange at a time with a peer, so a frame
or an `Open` that was overtaken by its own `Settle` can never be applied. Barring costs one integer per initiator.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from adpsgd_node.core.exchange.frame import SettleOutcome
from adpsgd_node.ids import NodeId

__all__ = ["MAX_BARRED_INITIATORS", "MAX_GIVEN_UP", "MAX_OPEN_ENTRIES", "ExchangeKey", "Journal"]

MAX_OPEN_ENTRIES = 16
"""Exchanges that may be open or wait for their settling at once; each holds at most a window of chunks."""

MAX_GIVEN_UP = 1024
"""Exchanges given up by this side that are remembered, so that their initiators can be told; the oldest go first."""

MAX_BARRED_INITIATORS = 16_384
"""Boots of initiators whose highest ended exchange id is kept; the one heard from longest ago goes first."""

Undo = TypeVar("Undo")


@dataclass(frozen=True, slots=True)
class ExchangeKey:
    initiator: NodeId
    exchange_id: int

    def __str__(self) -> str:
        return f"{self.initiator}/{self.exchange_id}"


@dataclass(slots=True)
class _Entry(Generic[Undo]):
    undo: dict[int, Undo] = field(default_factory=dict)
    recorded: int = 0


class Journal(Generic[Undo]):
    """What was applied here and not yet acknowledged, by exchange. `Undo` is whatever takes one chunk back."""

    def __init__(self) -> None:
        self._entries: dict[ExchangeKey, _Entry[Undo]] = {}
        self._barred: OrderedDict[NodeId, int] = OrderedDict()
        self._given_up: OrderedDict[ExchangeKey, SettleOutcome] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def full(self) -> bool:
        return len(self._entries) >= MAX_OPEN_ENTRIES

    def is_open(self, key: ExchangeKey) -> bool:
        return key in self._entries

    def barred(self, key: ExchangeKey) -> bool:
        """Tell whether this exchange, or a later one of the same initiator, has ended already."""
        return key.exchange_id <= self._barred.get(key.initiator, 0)

    def open_with(self, initiator: NodeId) -> bool:
        """Tell whether an exchange with this boot of the initiator has not ended yet."""
        return any(key.initiator == initiator for key in self._entries)

    def moved_on(self, key: ExchangeKey, running: Container[ExchangeKey]) -> bool:
        """Tell whether an initiator that opens `key` has given up settling its earlier exchanges, which run no more.

        It starts none with a peer while one with that peer is unsettled; that one it forgets when the peer has been
        dead for an hour.
        """
        earlier = self.keys_of(key.initiator)
        return bool(earlier) and all(each.exchange_id < key.exchange_id and each not in running for each in earlier)

    def open(self, key: ExchangeKey) -> None:
        """Begin an entry. The caller has checked `full`, `barred` and `open_with`."""
        assert not self.full
        assert not self.barred(key)
        assert key not in self._entries
        self._entries[key] = _Entry()

    def record(self, key: ExchangeKey, index: int, undo: Undo) -> None:
        """Keep what takes chunk `index` back."""
        entry = self._entries[key]
        entry.undo[index] = undo
        entry.recorded += 1

    def recorded(self, key: ExchangeKey) -> int:
        """Return how many chunks of an open entry were applied here, acknowledged or not; 0 for any other."""
        entry = self._entries.get(key)
        return entry.recorded if entry is not None else 0

    def acknowledge(self, key: ExchangeKey, through: int) -> None:
        """Drop the undo of chunks [0, through)."""
        entry = self._entries[key]
        for index in [index for index in entry.undo if index < through]:
            del entry.undo[index]

    def end(self, key: ExchangeKey, applied_through: int) -> list[tuple[int, Undo]]:
        """End an entry; return the chunks to revert, newest first. Unknown or ended entries give nothing."""
        self._bar(key)
        entry = self._entries.pop(key, None)
        if entry is None:
            return []
        return sorted(((i, u) for i, u in entry.undo.items() if i >= applied_through), key=lambda p: -p[0])

    def settle(self, key: ExchangeKey, applied_through: int) -> tuple[SettleOutcome, list[tuple[int, Undo]]]:
        """End an entry on the initiator's word. Idempotent: told again, it reverts nothing more."""
        if key in self._given_up:
            return self._given_up[key], []
        known = self.is_open(key) or self.barred(key)
        return (SettleOutcome.SETTLED if known else SettleOutcome.UNKNOWN), self.end(key, applied_through)

    def forget(self, initiator: NodeId, outcome: SettleOutcome = SettleOutcome.EVICTED) -> int:
        """Drop the entries of a boot held to be over: what was applied here stands. Return how many.

        outcome: what it is told should it ask after all.
        """
        keys = self.keys_of(initiator)
        for key in keys:
            self._bar(key)
            del self._entries[key]
            self._given_up[key] = outcome
            while len(self._given_up) > MAX_GIVEN_UP:
                self._given_up.popitem(last=False)
        return len(keys)

    def keys_of(self, initiator: NodeId) -> list[ExchangeKey]:
        """Return the open entries of one boot of an initiator."""
        return [key for key in self._entries if key.initiator == initiator]

    def initiators(self) -> list[NodeId]:
        """Return who has entries here, the oldest entry first."""
        return [key.initiator for key in self._entries]

    def _bar(self, key: ExchangeKey) -> None:
        self._barred[key.initiator] = max(key.exchange_id, self._barred.get(key.initiator, 0))
        self._barred.move_to_end(key.initiator)
        while len(self._barred) > MAX_BARRED_INITIATORS:
            self._barred.popitem(last=False)

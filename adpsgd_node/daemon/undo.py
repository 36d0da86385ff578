"""Keep what takes a responder's chunks back until their initiator has applied its half, and take them back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adpsgd_node.codecs import Codec
from adpsgd_node.core.exchange.frame import Settled, SettleOutcome
from adpsgd_node.core.exchange.journal import ExchangeKey, Journal
from adpsgd_node.daemon.merge import Merge
from adpsgd_node.ids import NodeId

__all__ = ["Undo", "UndoLog"]


@dataclass(frozen=True, slots=True)
class Undo:
    """The two encoded vectors of one applied chunk and their scale: enough to compute its delta again, exactly."""

    codec: Codec
    theirs: memoryview
    mine: memoryview
    scale: float = 1.0


class UndoLog:
    """The journal of one node, and the plane that it is about."""

    def __init__(self, kept: Callable[[ExchangeKey, int], None]) -> None:
        self.journal: Journal[Undo] = Journal()
        self.merge: Merge | None = None
        self._kept = kept

    def use(self, merge: Merge) -> list[NodeId]:
        """Work on another plane; what was applied to the earlier one is gone. Return whose exchanges that ends."""
        initiators = self.journal.initiators()
        for initiator in initiators:
            self.journal.forget(initiator, SettleOutcome.REBOOTED)
        self.merge = merge
        return initiators

    def finish(self, key: ExchangeKey, applied_through: int) -> None:
        """End an exchange in good order: take back what the initiator has not applied."""
        recorded = self.journal.recorded(key)
        self._revert(key, recorded, self.journal.end(key, applied_through))

    def settle(self, key: ExchangeKey, applied_through: int) -> Settled:
        """End an exchange on the initiator's word, after its stream broke."""
        recorded = self.journal.recorded(key)
        outcome, undo = self.journal.settle(key, applied_through)
        self._revert(key, recorded, undo)
        return Settled(outcome, len(undo))

    def forget(self, initiator: NodeId) -> int:
        """Let what was applied stand: the initiator is over, or taken to be. Return how many exchanges that ends."""
        for key in self.journal.keys_of(initiator):
            if recorded := self.journal.recorded(key):
                self._kept(key, recorded)
        return self.journal.forget(initiator)

    def _revert(self, key: ExchangeKey, recorded: int, undo: list[tuple[int, Undo]]) -> None:
        for index, item in undo:
            assert self.merge is not None
            self.merge.revert(item.codec, index, item.theirs, item.mine, item.scale)
        if recorded > len(undo):
            self._kept(key, recorded - len(undo))

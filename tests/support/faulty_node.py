"""Nodes that break one rule of the exchange each, to prove that a simulation notices."""

from __future__ import annotations

from dataclasses import replace

from adpsgd_node.core.exchange.frame import Chunk, Decline, DeclineReason, Open, Settle, Settled
from adpsgd_node.core.exchange.journal import ExchangeKey, Journal
from adpsgd_node.ids import NodeId
from adpsgd_node.sim import ExchangeNode
from adpsgd_node.sim.initiate import Initiation
from adpsgd_node.sim.replica import Replica
from adpsgd_node.sim.respond import Response, Undo
from adpsgd_node.sim.settle import Settling
from adpsgd_node.sim.stream import StreamEnd, StreamEvent

__all__ = ["FAULTY"]


class _Forgetful(Response):
    def record(self, index: int, undo: Undo) -> None:
        pass


class SkipsTheJournal(ExchangeNode):
    response_type = _Forgetful


class RevertsNothingOnSettle(ExchangeNode):
    def settle(self, settle: Settle) -> Settled:
        outcome, _ = self.journal.settle(ExchangeKey(settle.initiator, settle.exchange_id), settle.applied_through)
        return Settled(outcome, 0)


class RevertsEverythingOnSettle(ExchangeNode):
    def settle(self, settle: Settle) -> Settled:
        return super().settle(replace(settle, applied_through=0))


class _Moving(Initiation):
    def mine(self, index: int) -> int:
        super().mine(index)
        return self.current(index)


class AveragesItsCurrentValue(ExchangeNode):
    """In place of the snapshot that it has sent."""

    initiation_type = _Moving


class _Unclipped(Initiation):
    def scale(self, chunk: Chunk) -> float:
        return 1.0


class IgnoresTheClip(ExchangeNode):
    initiation_type = _Unclipped


class _Unbarred(Journal[Undo]):
    def barred(self, key: ExchangeKey) -> bool:
        return False


class BarsNothing(ExchangeNode):
    journal_type = _Unbarred


class _Deaf(Response):
    def settled_meanwhile(self) -> bool:
        return False


class GoesOnAfterItsSettle(ExchangeNode):
    response_type = _Deaf


class ForgetsWhoSeemsDead(ExchangeNode):
    def peer_dead(self, peer: NodeId) -> None:
        super().peer_dead(peer)
        self.journal.forget(peer)
        self.settling.forget(peer)


class _Mute(Settling):
    def start(self, settle: Settle) -> None:
        pass


class NeverSettles(ExchangeNode):
    settling_type = _Mute


class _Boastful(Settling):
    def start(self, settle: Settle) -> None:
        super().start(replace(settle, applied_through=settle.applied_through + 1))


class ClaimsOneChunkMore(ExchangeNode):
    settling_type = _Boastful


class _Floored(Replica):
    def delta(self, difference: int, scale: float) -> int:
        return int(difference * scale) // 2


class RoundsDown(ExchangeNode):
    """Whatever the sign: the halves of the two sides are no exact negatives."""

    replica_type = _Floored


class ServesOnlyWhenIdle(ExchangeNode):
    """An inbound exchange waits for the outbound one: a cycle of such waits ends by no deadline but the pace's."""

    def opened(self, end: StreamEnd, event: StreamEvent) -> None:
        if self.outbound is not None:
            self.process.after(0.5, self.opened, end, event)
        else:
            super().opened(end, event)


class DeclinesAll(ExchangeNode):
    def judge(self, open_: Open) -> Decline | None:
        return Decline(DeclineReason.NOT_READY)


FAULTY: tuple[type[ExchangeNode], ...] = (
    SkipsTheJournal,
    RevertsNothingOnSettle,
    RevertsEverythingOnSettle,
    AveragesItsCurrentValue,
    IgnoresTheClip,
    BarsNothing,
    GoesOnAfterItsSettle,
    ForgetsWhoSeemsDead,
    NeverSettles,
    ClaimsOneChunkMore,
    RoundsDown,
    ServesOnlyWhenIdle,
    DeclinesAll,
)

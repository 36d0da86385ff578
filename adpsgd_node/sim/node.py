"""Run one node's exchanges in virtual time, by the rules of `daemon.exchange_io`, on the machines it runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from adpsgd_node.core.exchange.arbiter import Terms, judge
from adpsgd_node.core.exchange.frame import (
    CodecName,
    Decline,
    DeclineReason,
    Open,
    Settle,
    Settled,
    SettleOutcome,
)
from adpsgd_node.core.exchange.initiator import InitiatorEnded
from adpsgd_node.core.exchange.journal import ExchangeKey, Journal
from adpsgd_node.core.exchange.outcome import Outcome, SettleEnd
from adpsgd_node.core.exchange.rate import Rates
from adpsgd_node.core.exchange.responder import ResponderEnded
from adpsgd_node.core.membership import Member
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId, SchemaHash
from adpsgd_node.sim.initiate import Initiation
from adpsgd_node.sim.process import Process, Watchdog
from adpsgd_node.sim.replica import Replica
from adpsgd_node.sim.respond import Response, Undo
from adpsgd_node.sim.settle import Settling
from adpsgd_node.sim.setup import ExchangeSetup
from adpsgd_node.sim.stream import StreamEnd, StreamEvent
from adpsgd_node.sim.tally import Tally
from adpsgd_node.sim.transport import Transport

__all__ = ["ExchangeNode"]

_SCHEMA = SchemaHash(bytes(32))
_CHUNK_BYTES = 16


class ExchangeNode:
    """One life's exchanges: one outbound at a time, a bounded number inbound, and the settling of broken ones."""

    journal_type: type[Journal[Undo]] = Journal
    initiation_type = Initiation
    response_type = Response
    settling_type = Settling
    replica_type = Replica

    def __init__(
        self,
        process: Process,
        transport: Transport,
        setup: ExchangeSetup,
        tally: Tally,
        rng: random.Random,
        address_of: Callable[[NodeId], Address | None],
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.id = process.life.id
        self.process = process
        self.transport = transport
        self.setup = setup
        self.counts = tally
        self.trace = trace
        self.replica = self.replica_type(setup.chunk_count, rng)
        self.journal = self.journal_type()
        self.settling = self.settling_type(self, address_of, self._settled)
        self.outbound: Initiation | None = None
        self._outbound_over = False  # the responder's boot was found to be over while the exchange ran
        self.inbound: dict[ExchangeKey, Response] = {}
        self.served_at = -1.0
        """When this node last completed an exchange that another had started."""
        self.ready = False
        self.stopping = False
        self._rng = rng
        self._address_of = address_of
        self._last_id = 0
        self._rates = Rates()
        process.accept = self._accept
        process.settle = self.settle

    @property
    def now(self) -> float:
        return self.process.clock.now

    def awaited(self) -> bool:
        """Tell whether something here has to be settled with a member that is held live, in either role."""
        peers = {*self.settling.peers, *self.journal.initiators()}
        return any(self._address_of(peer) is not None for peer in peers)

    @property
    def busy(self) -> bool:
        """Whether an exchange runs here, in either role."""
        return self.outbound is not None or bool(self.inbound)

    def note(self, text: str) -> None:
        """Write a line of the transcript."""
        if self.trace is not None:
            self.trace(f"{self.id} {text}")

    def guard_refuses(self) -> bool:
        """Tell whether the guard refuses the next chunk: here by chance."""
        return self._rng.random() < self.setup.refusals

    def scale(self) -> float:
        """Return the part of a difference that is to be applied, as a responder: clipped by chance."""
        return 1.0 if self._rng.random() >= self.setup.clips else self._rng.random()

    def watchdog(self, peer: NodeId, complain: Callable[[str], None]) -> Watchdog:
        """Watch the pace of an exchange with `peer` from now on."""
        return Watchdog(self.process, self._rates.of(peer), self.setup.chunk_count * _CHUNK_BYTES, complain)

    def initiate(self, peer: Member, ended: Callable[[Outcome], None]) -> None:
        """Exchange with one peer, and see to its settling if it breaks."""
        assert self.outbound is None, "one outbound exchange at a time"
        assert peer.id not in self.settling.peers, "the last exchange with this peer is not settled yet"
        self._last_id += 1
        self.counts.started += 1
        open_ = Open(
            protocol=PROTOCOL_VERSION,
            run_id=RunId("simulation"),
            schema=_SCHEMA,
            initiator=self.id,
            responder=peer.id,
            exchange_id=self._last_id,
            codec=CodecName.FP32,
            chunk_bytes=_CHUNK_BYTES,
            chunk_count=self.setup.chunk_count,
            step=0,
        )
        self.note(f"{self.id}/{self._last_id} opens with {peer.id}")
        self.outbound = self.initiation_type(self, peer.address, open_, partial(self._initiation_ended, ended))

    def peer_dead(self, peer: NodeId) -> None:
        """Break off what is under way with a member thought dead. It may only be frozen: its settling is kept."""
        if self.outbound is not None and self.outbound.peer == peer:
            self.outbound.break_off(f"{peer} is held dead")
        for key, response in list(self.inbound.items()):
            if key.initiator == peer:
                response.break_off(f"{peer} is held dead")

    def peer_over(self, peer: NodeId) -> None:
        """Forget a boot that has left or was followed by another: its memory is gone, so nothing is to be settled."""
        if self.outbound is not None and self.outbound.peer == peer:
            self._outbound_over = True
        self.peer_dead(peer)
        for _ in range(self.journal.forget(peer)):
            self._settled(peer, SettleEnd.ABANDONED)
        self.settling.forget(peer)
        self._rates.forget(peer)

    def settle(self, settle: Settle) -> Settled:
        """Answer an initiator's `Settle`: revert what it did not apply, and bar the exchange."""
        if settle.responder != self.id:
            return Settled(SettleOutcome.REBOOTED, 0)
        key = ExchangeKey(settle.initiator, settle.exchange_id)
        outcome, undo = self.journal.settle(key, settle.applied_through)
        self.note(f"{key} is settled at {settle.applied_through}: {outcome.name.lower()}, reverts {len(undo)}")
        self.revert(key, undo)
        return Settled(outcome, len(undo))

    def revert(self, key: ExchangeKey, undo: list[tuple[int, Undo]]) -> None:
        """Take back chunks that the initiator did not apply."""
        for index, item in undo:
            self.replica.revert(key.initiator, index, item.theirs, item.mine, item.scale)

    def response_ended(self, response: Response, ended: ResponderEnded) -> None:
        """Take note that an inbound exchange is over."""
        del self.inbound[response.key]
        self.counts.ended(self.now - response.began)
        if ended.outcome is Outcome.COMPLETE:
            self.served_at = self.now
        self.note(f"{response.key} ends here as {ended.outcome.value}" + (f": {ended.cause}" if ended.cause else ""))

    def judge(self, open_: Open) -> Decline | None:
        """Return why an exchange is declined, None to accept it."""
        if self.journal.full:
            self._evict()
        key = ExchangeKey(open_.initiator, open_.exchange_id)
        terms = Terms(
            self_id=self.id,
            run_id=RunId("simulation"),
            schema=_SCHEMA,
            chunk_bytes=_CHUNK_BYTES,
            chunk_count=self.setup.chunk_count,
            ready=self.ready,
            poisoned=False,
            stopping=self.stopping,
            inbound=len(self.inbound),
            max_inbound=self.setup.max_inbound,
        )
        moved_on = self.journal.moved_on(key, self.inbound)
        decline = judge(
            open_,
            terms,
            barred=self.journal.barred(key),
            unsettled=self.journal.open_with(open_.initiator) and not moved_on,
            journal_full=self.journal.full and not moved_on,
        )
        if decline is None and moved_on:
            self._give_up(open_.initiator)
        return decline

    def _accept(self, end: StreamEnd) -> None:
        end.take = partial(self.opened, end)

    def opened(self, end: StreamEnd, event: StreamEvent) -> None:
        """Hear the first words on a stream that a peer opened."""
        if not isinstance(event, Open):
            end.cancel()
            return
        key = ExchangeKey(event.initiator, event.exchange_id)
        decline = self.judge(event)
        if decline is not None:
            self.note(f"{key} is declined: {DeclineReason(decline.reason).name.lower()}")
            end.send(decline)
            end.close()
            return
        self.note(f"{key} is accepted")
        self.journal.open(key)
        self.inbound[key] = self.response_type(self, end, event)

    def _initiation_ended(self, ended: Callable[[Outcome], None], how: InitiatorEnded) -> None:
        initiation = self.outbound
        assert initiation is not None
        self.outbound = None
        self.counts.outcomes[how.outcome] += 1
        self.counts.ended(self.now - initiation.began)
        self.note(
            f"{self.id}/{initiation.exchange_id} ends as {how.outcome.value}, applied {how.applied}"
            + (f": {how.cause}" if how.cause else "")
        )
        over, self._outbound_over = self._outbound_over, False
        if how.outcome is Outcome.BROKEN and over:
            self._settled(initiation.peer, SettleEnd.ABANDONED)
        elif how.outcome is Outcome.BROKEN:
            self.settling.start(
                Settle(
                    run_id=RunId("simulation"),
                    initiator=self.id,
                    responder=initiation.peer,
                    exchange_id=initiation.exchange_id,
                    applied_through=initiation.machine.applied,
                )
            )
        self.process.after(0.0, ended, how.outcome)

    def _evict(self) -> None:
        for initiator in self.journal.initiators():
            if self._address_of(initiator) is None:
                self.counts.evicted.add(frozenset((self.id, initiator)))
                self._give_up(initiator)
                return

    def _give_up(self, initiator: NodeId) -> None:
        self.journal.forget(initiator)
        self._settled(initiator, SettleEnd.EVICTED)

    def _settled(self, peer: NodeId, end: SettleEnd) -> None:
        self.counts.settled[end] += 1
        self.note(f"settling with {peer} ended: {end.value}")

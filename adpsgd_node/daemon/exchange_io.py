"""Run a node's exchanges: one outbound at a time, a bounded number inbound, and the settling of broken ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from adpsgd_node.codecs import Codec, codec_named
from adpsgd_node.core.exchange.arbiter import Terms, judge
from adpsgd_node.core.exchange.frame import (
    Accept,
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
from adpsgd_node.core.exchange.outcome import Outcome, Role, SettleEnd
from adpsgd_node.core.exchange.rate import Rates
from adpsgd_node.daemon.discipline import Discipline
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.initiate import Initiation
from adpsgd_node.daemon.merge import Merge, Side
from adpsgd_node.daemon.pace import OPEN_WAIT_S, Pace
from adpsgd_node.daemon.respond import Response
from adpsgd_node.daemon.settings import ExchangeConfig
from adpsgd_node.daemon.settle import Settling
from adpsgd_node.daemon.surroundings import DeclinedError, Surroundings
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.daemon.undo import Undo, UndoLog
from adpsgd_node.errors import StreamBrokenError, TransportError, WireError
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId
from adpsgd_node.net.transport import Stream, StreamMethod, Transport
from adpsgd_node.plane import Plane
from adpsgd_node.wire.framing import decode_frame, decode_settle, encode_frame, encode_settled

__all__ = ["ExchangeEngine", "Surroundings"]


class ExchangeEngine:
    """The exchanges of one node. Set `plane` through `use`, then `ready`, and call `initiate`."""

    def __init__(
        self,
        identity: NodeId,
        run_id: RunId,
        transport: Transport,
        config: ExchangeConfig,
        surroundings: Surroundings,
        tasks: Tasks,
    ) -> None:
        self.ready = False
        self.poisoned = False
        self.stopping = False
        self.inbound: set[ExchangeKey] = set()
        """Exchanges that peers started, and that run."""
        self.max_inbound = config.max_inbound
        self.patient = False
        """Peers may keep an exchange of this node waiting for as long as they live (D-PSGD)."""
        self._identity = identity
        self._run_id = run_id
        self._transport = transport
        self._config = config
        self._around = surroundings
        self._settling = Settling(identity, run_id, transport, surroundings.address_of, surroundings.settled, tasks)
        self._discipline = Discipline(config.clip_exchange, surroundings.sentenced)
        self._rates = Rates()
        self._undo = UndoLog(lambda key, chunks: surroundings.kept(Role.RESPONDER, key, chunks))
        self._plane: Plane | None = None
        self._merge: Merge | None = None
        self._last_id = 0
        self._outbound: dict[NodeId, bool] = {}  # whether the responder's boot was found to be over meanwhile
        self._asking = 0  # opened by peers, those included that are kept waiting
        self._streams: dict[NodeId, set[Stream]] = {}

    def use(self, plane: Plane) -> None:
        """Exchange on this plane from now on; what was applied to an earlier one went with it, as with a reboot."""
        self.break_off()
        self._plane, self._merge = plane, Merge(plane)
        for _ in self._undo.use(self._merge):
            self._around.settled(SettleEnd.ABANDONED)
        self._discipline.use(plane)

    @property
    def journal(self) -> Journal[Undo]:
        """What was applied here for initiators that have not acknowledged it yet."""
        return self._undo.journal

    def break_off(self) -> None:
        """Break all running exchanges: what this node holds must not reach others any more."""
        for streams in self._streams.values():
            for stream in list(streams):
                stream.cancel()

    @property
    def initiating(self) -> bool:
        """Whether an exchange that this node started is running."""
        return bool(self._outbound)

    @property
    def running(self) -> int:
        """Exchanges that run now, in both roles."""
        return len(self.inbound) + len(self._outbound)

    @property
    def unsettled(self) -> int:
        """Broken exchanges not yet resolved, in both roles, those with dead peers included."""
        return len(self._settling.peers) + max(0, len(self.journal) - len(self.inbound))

    def may_exchange_with(self, peer: NodeId) -> bool:
        """Tell whether the last exchange with this peer is over and resolved, and nothing is held against it."""
        return peer not in self._outbound and peer not in self._settling.peers and not self.quarantine_of(peer)

    def freeze(self, frozen: bool) -> None:
        """Average what the trainer has published, without what other exchanges have brought since; or (False) all."""
        if self._merge is not None:
            self._merge.frozen = frozen

    def quarantine_of(self, peer: NodeId) -> str:
        """Say why nothing is exchanged with this peer for now; empty when something is."""
        return self._discipline.why(peer, asyncio.get_running_loop().time())

    def apart_from(self, peer: NodeId) -> bool:
        """Tell whether this node and the peer exchange nothing for now, whichever of the two keeps away."""
        return self._discipline.apart(peer, asyncio.get_running_loop().time())

    @property
    def quarantined(self) -> int:
        """How many peers are in quarantine now."""
        return self._discipline.quarantined(asyncio.get_running_loop().time())

    def refused_by_peers(self) -> str:
        """Say that several peers refuse what this node sends; empty when they do not."""
        return self._discipline.problem(asyncio.get_running_loop().time())

    def peer_dead(self, peer: NodeId) -> None:
        """Break off what is under way with a member thought dead. It may only be frozen: its settling is kept."""
        for stream in list(self._streams.get(peer, ())):
            stream.cancel()
        self._settling.notify()  # who waits until all is settled with the living does not wait for this one

    def peer_over(self, peer: NodeId) -> None:
        """Forget a boot that has left or was followed by another: its memory is gone, so nothing is to be settled."""
        self.peer_dead(peer)
        if peer in self._outbound:
            self._outbound[peer] = True
        for _ in range(self._undo.forget(peer)):
            self._around.settled(SettleEnd.ABANDONED)
        self._settling.forget(peer)
        self._discipline.forget(peer)
        self._rates.forget(peer)

    async def initiate(self, peer: NodeId, address: Address, codec_name: CodecName) -> ExchangeReport:
        """Exchange with one peer; reports and returns how it ended, and sees to its settling if it broke."""
        assert self.patient or not self._outbound, "one outbound exchange at a time"
        assert self.may_exchange_with(peer)
        self._outbound[peer] = False
        try:
            report = await self._initiate(peer, address, codec_name)
        finally:
            del self._outbound[peer]
            self._settling.notify()
        self._report(report)
        return report

    async def _initiate(self, peer: NodeId, address: Address, codec_name: CodecName) -> ExchangeReport:
        assert self._plane is not None
        assert self._merge is not None
        merge, loop = self._merge, asyncio.get_running_loop()
        started, first_step = loop.time(), self._plane.header.step
        try:
            stream = await self._transport.open(address, StreamMethod.CONVERSE)
        except TransportError as error:
            outcome = Outcome.UNREACHABLE
            return ExchangeReport(role=Role.INITIATOR, peer=peer, outcome=outcome, cause=str(error))
        open_ = self._open(peer, codec_name)
        initiation = Initiation(
            stream,
            open_,
            merge,
            codec_named(codec_name),
            self._discipline.referee(peer),
            window=self._config.window,
            pace=self._pace(peer, patient=self.patient),
        )
        ended = InitiatorEnded(Outcome.BROKEN, 0, cause="cancelled")
        self._streams.setdefault(peer, set()).add(stream)
        try:
            ended = await initiation.run()
        finally:
            self._drop(peer, stream)
            if applied := initiation.machine.applied:
                self._around.kept(Role.INITIATOR, ExchangeKey(self._identity, open_.exchange_id), applied)
            if ended.outcome is Outcome.BROKEN and self._outbound[peer]:
                self._around.settled(SettleEnd.ABANDONED)
            elif ended.outcome is Outcome.BROKEN:
                self._settling.start(peer, open_.exchange_id, applied)
        if merge is self._merge and (ruined := initiation.own_fault()) is not None:  # else the plane was given up
            self._around.poisoned(ruined)
        return initiation.report(
            ended, seconds=loop.time() - started, steps_during=self._plane.header.step - first_step
        )

    def _open(self, peer: NodeId, codec_name: CodecName) -> Open:
        assert self._plane is not None
        layout = self._plane.layout
        self._last_id += 1
        return Open(
            protocol=PROTOCOL_VERSION,
            run_id=self._run_id,
            schema=layout.schema,
            initiator=self._identity,
            responder=peer,
            exchange_id=self._last_id,
            codec=codec_name,
            chunk_bytes=layout.chunk_bytes,
            chunk_count=len(layout.chunks),
            step=self._plane.header.step,
            progress=self._around.progress(),
            clip=self._config.clip_exchange,
            round=self._around.round(),
        )

    def _report(self, report: ExchangeReport) -> None:
        self._discipline.ended(report, asyncio.get_running_loop().time())
        self._around.report(report)

    async def converse(self, stream: Stream) -> None:
        """Serve one inbound exchange."""
        try:
            async with asyncio.timeout(OPEN_WAIT_S):
                message = await stream.receive()
        except TimeoutError:
            raise StreamBrokenError(f"no Open within {OPEN_WAIT_S:g} s") from None
        if message is None:
            return
        frame = decode_frame(message)
        if not isinstance(frame, Open):
            raise WireError(f"an exchange begins with Open, {type(frame).__name__} came")
        decline = self._judge(frame, self._asking)
        if decline is None:
            with contextlib.suppress(DeclinedError):  # it tells the rounds that this exchange did not come about
                async with self._admission(frame, stream):
                    decline = self._judge(frame, self._asking - 1)  # much may have happened meanwhile
                    if decline is not None:
                        raise DeclinedError
                    await self._respond(stream, frame, len(message))
        if decline is None:
            return
        await stream.send(encode_frame(decline))
        outcome = Outcome.DECLINED if decline.reason is DeclineReason.BUSY else Outcome.REFUSED
        self._report(ExchangeReport(role=Role.RESPONDER, peer=frame.initiator, outcome=outcome, decline=decline))

    @contextlib.asynccontextmanager
    async def _admission(self, open_: Open, stream: Stream) -> AsyncIterator[None]:
        """Let an exchange wait until it may go on; one whose initiator dies meanwhile is cancelled with its stream."""
        initiator = open_.initiator
        self._asking += 1
        self._streams.setdefault(initiator, set()).add(stream)
        try:
            async with self._around.admission(initiator, open_.round):
                yield
        finally:
            self._asking -= 1
            self._drop(initiator, stream)

    def _judge(self, open_: Open, others: int) -> Decline | None:
        """Say why not to accept; `others`: exchanges that peers have opened besides this one."""
        if self.journal.full:
            self._evict()
        plane = self._plane
        key = ExchangeKey(open_.initiator, open_.exchange_id)
        terms = Terms(
            self_id=self._identity,
            run_id=self._run_id,
            schema=plane.layout.schema if plane else None,
            chunk_bytes=plane.layout.chunk_bytes if plane else 0,
            chunk_count=len(plane.layout.chunks) if plane else 0,
            ready=self.ready,
            poisoned=self.poisoned,
            stopping=self.stopping,
            inbound=others,
            max_inbound=self.max_inbound,
        )
        moved_on = self.journal.moved_on(key, self.inbound)
        decline = judge(
            open_,
            terms,
            barred=self.journal.barred(key),
            unsettled=self.journal.open_with(open_.initiator) and not moved_on,
            journal_full=self.journal.full and not moved_on,
            quarantine=self.quarantine_of(open_.initiator),
        )
        if decline is None and moved_on:
            self._give_up(open_.initiator)
        return decline

    def _evict(self) -> None:
        """Make room in a full journal: what a dead initiator left goes first."""
        for initiator in self.journal.initiators():
            if self._around.address_of(initiator) is None:
                self._give_up(initiator)
                return

    def _give_up(self, initiator: NodeId) -> None:
        """Keep what only this side may have applied of what this initiator has not settled."""
        self._undo.forget(initiator)
        self._around.settled(SettleEnd.EVICTED)

    async def _respond(self, stream: Stream, open_: Open, open_bytes: int) -> None:
        assert self._plane is not None
        assert self._merge is not None
        loop = asyncio.get_running_loop()
        merge, started, first_step = self._merge, loop.time(), self._plane.header.step
        codec: Codec = codec_named(open_.codec)
        referee = self._discipline.referee(open_.initiator)
        referee.tighten(open_.clip)
        referee.share = self._around.share(open_.initiator)
        pace = self._pace(open_.initiator)
        response = Response(stream, open_, open_bytes, merge, codec, referee, self._undo, pace=pace)
        self.journal.open(response.key)
        self.inbound.add(response.key)
        try:
            await response.run(encode_frame(Accept(first_step, self._around.progress(), self._around.round())))
        finally:
            self.inbound.discard(response.key)
            self._settling.notify()
            if response.refused_side is Side.OWN and merge is self._merge:  # else the plane was given up
                self._around.poisoned(response.machine.merged)
            steps_during = self._plane.header.step - first_step
            self._report(response.report(seconds=loop.time() - started, steps_during=steps_during))
        if response.cause:
            stream.cancel()

    def _pace(self, peer: NodeId, *, patient: bool = False) -> Pace:
        assert self._plane is not None
        layout = self._plane.layout
        return Pace(self._rates.of(peer), 4 * layout.elements, layout.chunk_bytes, patient=patient)

    def _drop(self, peer: NodeId, stream: Stream) -> None:
        streams = self._streams[peer]
        streams.discard(stream)
        self._settling.notify()
        if not streams:
            del self._streams[peer]

    async def settle(self, request: bytes) -> bytes:
        """Answer an initiator's `Settle`: revert what it did not apply, and bar the exchange."""
        return encode_settled(self._settle(decode_settle(request)))

    def _settle(self, settle: Settle) -> Settled:
        if settle.run_id != self._run_id:
            return Settled(SettleOutcome.REFUSED, 0)
        if settle.responder != self._identity:
            return Settled(SettleOutcome.REBOOTED, 0)
        key = ExchangeKey(settle.initiator, settle.exchange_id)
        settled = self._undo.settle(key, settle.applied_through)
        self._settling.notify()
        return settled

    async def drain(self, timeout_s: float) -> bool:
        """Accept nothing more; wait until nothing runs and all is settled, in both roles, with peers that live.

        Return False when time ran out.
        """
        self.stopping = True
        return await self._settling.drained(timeout_s, lambda: not self.running and not self._awaits_settle())

    def _awaits_settle(self) -> bool:
        """Tell whether a live initiator has yet to say what it applied: only then can the rest be reverted here."""
        return any(self._around.address_of(initiator) is not None for initiator in self.journal.initiators())

"""Tell responders of broken exchanges what was applied here, until they answer or are gone (invariant 2).

A responder thought dead may only be frozen, with what it applied still in its memory: its settling waits, and goes on
when it comes back. It ends when the responder has answered, has left, or was followed by another boot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from adpsgd_node.core.exchange.frame import Settle
from adpsgd_node.core.exchange.outcome import SettleEnd
from adpsgd_node.core.exchange.retry import DEAD_RETRY_S, SettleRetry
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.errors import DeadlineError, TransportError, WireError
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.net.transport import Method, Transport
from adpsgd_node.telemetry.log import EventLog
from adpsgd_node.wire.framing import decode_settled, encode_settle

__all__ = ["Settling"]


class Settling:
    """The unsettled exchanges that this node initiated: at most one a peer."""

    def __init__(
        self,
        identity: NodeId,
        run_id: RunId,
        transport: Transport,
        address_of: Callable[[NodeId], Address | None],
        settled: Callable[[SettleEnd], None],
        tasks: Tasks,
    ) -> None:
        self.peers: set[NodeId] = set()
        """Peers with which no new exchange may start yet."""
        self._identity = identity
        self._run_id = run_id
        self._transport = transport
        self._address_of = address_of
        self._settled = settled
        self._tasks = tasks
        self._watch = Watch()
        self._log = EventLog("exchange")

    def start(self, peer: NodeId, exchange_id: int, applied_through: int) -> None:
        """Begin to settle one exchange in the background."""
        self.peers.add(peer)
        settle = Settle(
            run_id=self._run_id,
            initiator=self._identity,
            responder=peer,
            exchange_id=exchange_id,
            applied_through=applied_through,
        )
        self._tasks.start(f"settle exchange {exchange_id} with {peer}", self._settle(settle))

    def forget(self, peer: NodeId) -> None:
        """Stop settling with a peer whose memory is gone."""
        if peer in self.peers:
            self.peers.discard(peer)
            self._settled(SettleEnd.ABANDONED)
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits in `drained`."""
        self._watch.notify()

    async def drained(self, timeout_s: float, idle: Callable[[], bool]) -> bool:
        """Wait until nothing is unsettled with a live peer and `idle()` holds; False when time ran out."""
        return await self._watch.until(
            lambda: idle() and not any(self._address_of(peer) for peer in self.peers), timeout_s
        )

    async def _settle(self, settle: Settle) -> None:
        peer, loop = settle.responder, asyncio.get_running_loop()
        retry = SettleRetry(loop.time())
        while peer in self.peers:
            address = self._address_of(peer)
            if address is None:
                if retry.dead(loop.time()):
                    self.forget(peer)
                await asyncio.sleep(DEAD_RETRY_S)  # it may only be frozen, and come back
                continue
            retry.alive(loop.time())
            try:
                answer = await self._transport.call(
                    address, Method.SETTLE, encode_settle(settle), timeout_s=retry.timeout_s
                )
                outcome = SettleEnd.of(decode_settled(answer).outcome)
            except (TransportError, WireError) as error:
                if isinstance(error, WireError):
                    self._log.warning("a peer's answer cannot be read; it is asked again", peer=peer, error=str(error))
                elif isinstance(error, DeadlineError):
                    retry.timed_out()
                await asyncio.sleep(retry.unanswered())  # what it applied is still unknown: asked again
                continue
            if peer in self.peers:
                self.peers.discard(peer)
                self._settled(outcome)
            if outcome is SettleEnd.EVICTED:
                self._log.warning(
                    "a peer had given this node up, and kept what only one of the two may have applied",
                    peer=peer,
                    exchange=settle.exchange_id,
                    applied_here=settle.applied_through,
                )
            self.notify()

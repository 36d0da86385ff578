"""Settle broken exchanges in virtual time, by the rules of `daemon.settle`: until answered, or the peer is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from adpsgd_node.core.exchange.frame import Settle, Settled
from adpsgd_node.core.exchange.outcome import SettleEnd
from adpsgd_node.core.exchange.retry import DEAD_RETRY_S, SettleRetry
from adpsgd_node.ids import Address, NodeId

if TYPE_CHECKING:
    from adpsgd_node.sim.node import ExchangeNode

__all__ = ["Settling"]


class Settling:
    """The unsettled exchanges that a node initiated: at most one a peer."""

    def __init__(
        self,
        node: ExchangeNode,
        address_of: Callable[[NodeId], Address | None],
        settled: Callable[[NodeId, SettleEnd], None],
    ) -> None:
        self.peers: set[NodeId] = set()
        """Peers with which no new exchange may start yet."""
        self._node = node
        self._address_of = address_of
        self._settled = settled

    def start(self, settle: Settle) -> None:
        """Begin to settle one exchange."""
        assert settle.responder not in self.peers, f"two unsettled exchanges with {settle.responder}"
        self.peers.add(settle.responder)
        self._node.process.after(0.0, self._try, settle, SettleRetry(self._node.now))

    def forget(self, peer: NodeId) -> None:
        """Stop settling with a peer whose memory is gone."""
        self._end(peer, SettleEnd.ABANDONED)

    def _try(self, settle: Settle, retry: SettleRetry) -> None:
        peer = settle.responder
        if peer not in self.peers:
            return
        address = self._address_of(peer)
        if address is None:
            if retry.dead(self._node.now):
                self.forget(peer)
            self._node.process.after(DEAD_RETRY_S, self._try, settle, retry)
            return
        retry.alive(self._node.now)

        def answered(answer: Settled | None) -> None:
            if answer is not None:
                self._end(peer, SettleEnd.of(answer.outcome))
                return
            retry.timed_out()
            self._node.process.after(retry.unanswered(), self._try, settle, retry)

        self._node.transport.call(self._node.process, address, settle, retry.timeout_s, answered)

    def _end(self, peer: NodeId, end: SettleEnd) -> None:
        if peer in self.peers:
            self.peers.discard(peer)
            self._settled(peer, end)

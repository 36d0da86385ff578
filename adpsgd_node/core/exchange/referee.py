"""Judge the chunks of one exchange: whether each is accepted at all, and how much of the difference is applied."""

from __future__ import annotations

from adpsgd_node.core.exchange.clip import scale_for, stricter, within
from adpsgd_node.core.exchange.guard import Guard, NormJump, Norms
from adpsgd_node.errors import WireError
from adpsgd_node.ids import NodeId

__all__ = ["Referee"]


class Referee:
    """The rules of one exchange with `peer`. bound: of a clipped exchange; 0: none."""

    def __init__(self, guard: Guard, peer: NodeId, bound: float) -> None:
        self._guard = guard
        self._peer = peer
        self._bound = bound
        self.share = 1.0
        """The part of the difference that the responder applies at most; half of it is the peer's weight."""

    def tighten(self, bound: float) -> None:
        """Keep the initiator's bound too; 0: it has none."""
        self._bound = stricter(self._bound, bound)

    def propose(self, index: int, norms: Norms) -> NormJump | float:
        """Judge as the responder; return the scale that both sides are to use, or why the chunk is refused."""
        return self._guard.judge(self._peer, index, norms) or min(self.share, scale_for(self._bound, norms))

    def check(self, index: int, norms: Norms, scale: float) -> NormJump | float:
        """Judge as the initiator, which uses the responder's scale. Raises `WireError` when that breaks the bound."""
        jump = self._guard.judge(self._peer, index, norms)
        if jump is None and not within(scale, self._bound, norms):
            raise WireError(
                f"chunk {index} came with scale {scale:g}, which moves it by more than {self._bound:g} of the norm: "
                f"the answering node does not keep --clip-exchange"
            )
        return jump or scale

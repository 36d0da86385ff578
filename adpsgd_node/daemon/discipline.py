"""Keep harm from spreading between models: judge what peers send, leave offenders alone, notice being left alone."""

from __future__ import annotations

from collections.abc import Callable

from adpsgd_node.core.exchange.frame import DeclineReason
from adpsgd_node.core.exchange.guard import ChunkShape, Guard
from adpsgd_node.core.exchange.outcome import Outcome, Role
from adpsgd_node.core.exchange.quarantine import Offence, Quarantine, Refusals, Sentence, accusation
from adpsgd_node.core.exchange.referee import Referee
from adpsgd_node.core.tensor import Segment
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.ids import NodeId
from adpsgd_node.plane import Plane

__all__ = ["Discipline"]


class Discipline:
    """One node's guard, whom it leaves alone, and who leaves it alone."""

    def __init__(self, clip: float, sentenced: Callable[[Sentence], None]) -> None:
        self._clip = clip
        self._sentenced = sentenced
        self._guard = Guard(())
        self._quarantine = Quarantine()
        self._refusals = Refusals()

    def use(self, plane: Plane) -> None:
        """Guard another plane: nothing is known yet of how large its chunks are."""
        placements = plane.layout.placements
        buffers = min((p.start for p in placements if p.spec.segment is Segment.BUFFERS), default=plane.layout.elements)
        self._guard = Guard(
            [
                ChunkShape(stop - start, Segment.PARAMETERS if start < buffers else Segment.BUFFERS)
                for start, stop in plane.layout.chunks
            ]
        )

    def referee(self, peer: NodeId) -> Referee:
        """Return the rules for one exchange with `peer`."""
        return Referee(self._guard, peer, self._clip)

    def ended(self, report: ExchangeReport, now: float) -> None:
        """Draw the consequences of one exchange."""
        peer = report.peer
        if report.offence is not None:
            self._offended(peer, report.offence, now)
        elif report.outcome is Outcome.COMPLETE:
            self._quarantine.clean(peer)
        if report.abort is not None and (what := accusation(report.abort.reason)):
            self._refusals.refused(peer, what, now)
        elif report.role is Role.INITIATOR and report.decline is not None:
            if report.decline.reason is DeclineReason.QUARANTINED:
                self._refusals.refused(peer, report.decline.detail or "quarantined", now)
        elif report.outcome is Outcome.COMPLETE:
            self._refusals.accepted(peer)

    def forget(self, peer: NodeId) -> None:
        """Drop all that is known of a boot that is over."""
        self._guard.forget(peer)
        self._quarantine.forget(peer)
        self._refusals.accepted(peer)

    def why(self, peer: NodeId, now: float) -> str:
        """Say why nothing is exchanged with `peer` for now; empty when something is."""
        return self._quarantine.why(peer, now)

    def quarantined(self, now: float) -> int:
        """Count the peers in quarantine."""
        return self._quarantine.count(now)

    def apart(self, peer: NodeId, now: float) -> bool:
        """Tell whether this node and `peer` exchange nothing for now, whichever of the two keeps away."""
        return self._quarantine.holds(peer, now) or self._refusals.holds(peer, now)

    def problem(self, now: float) -> str:
        """Say that several peers refuse what this node sends; empty when they do not."""
        return self._refusals.problem(now)

    def _offended(self, peer: NodeId, offence: Offence, now: float) -> None:
        sentence = self._quarantine.offended(peer, offence, now)
        if sentence is not None:
            self._sentenced(sentence)

"""Keep account of a node's exchanges: metrics, counters, and a line in the log where somebody should know."""

from __future__ import annotations

from adpsgd_node.core.exchange.arbiter import HANDSHAKE_REASONS
from adpsgd_node.core.exchange.frame import Decline, DeclineReason
from adpsgd_node.core.exchange.outcome import Outcome, Role
from adpsgd_node.core.exchange.quarantine import Sentence
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.training import Training
from adpsgd_node.telemetry.log import EventLog, OncePer
from adpsgd_node.telemetry.metrics import Metrics

__all__ = ["Account"]

LOG_AGAIN_S = 300.0
LEAST_INTERVAL_S = 1.0
"""However many names peers give themselves, declines are logged at most once in this time for each reason."""


class Account:
    """What one node has exchanged so far."""

    def __init__(self, metrics: Metrics, training: Training) -> None:
        self.exchanges = {Role.INITIATOR: 0, Role.RESPONDER: 0}
        """Exchanges that averaged at least one chunk."""
        self.consensus_distance = float("nan")
        """Relative distance before the latest complete exchange; NaN before the first."""
        self._metrics = metrics
        self._training = training
        self._step_of_last = 0
        self._log = EventLog("exchange")
        self._once = OncePer(LOG_AGAIN_S)
        self._rarely = OncePer(LEAST_INTERVAL_S)

    def steps_since_exchange(self) -> int:
        return max(0, self._training.progress()[0] - self._step_of_last)

    def note(self, report: ExchangeReport, now: float) -> None:
        """Take in one exchange of either role."""
        self._metrics.exchange_ended(
            role=report.role,
            outcome=report.outcome,
            seconds=report.seconds,
            sent_bytes=report.bytes_sent,
            received_bytes=report.bytes_received,
            steps_during=report.steps_during,
        )
        if report.non_finite:
            self._metrics.non_finite_chunk()
        if report.decline is not None:
            self._declined(report, report.decline, now)
        if report.outcome is Outcome.BROKEN and self._rarely.due("broken", now):
            self._log.info("an exchange broke and is being settled", peer=report.peer, cause=report.cause)
        if report.moved:
            self._moved(report)

    def sentenced(self, sentence: Sentence, now: float, *, member: bool) -> None:
        """Take note of a peer put into quarantine. member: it belongs to the run, as far as is known here."""
        offence = sentence.offence
        self._metrics.quarantined(offence.kind)
        if not member and not self._rarely.due("quarantine", now):
            return  # names are cheap: strangers shall not flood the log
        self._log.warning(
            "exchanges nothing with a peer for a while: what it sent had to be refused",
            peer=sentence.peer,
            reason=offence.kind.value,
            chunk=offence.index,
            ratio=f"{offence.ratio:.3g}",
            quarantine_s=sentence.seconds,
            offences=sentence.offences,
        )

    def _moved(self, report: ExchangeReport) -> None:
        self.exchanges[report.role] += 1
        self._step_of_last = self._training.progress()[0]
        if report.outcome is Outcome.COMPLETE:
            self.consensus_distance = report.distance
            self._metrics.consensus_measured(report.distance)
        if self._training.plane is not None:
            self._training.plane.header.exchanges = sum(self.exchanges.values())

    def _declined(self, report: ExchangeReport, decline: Decline, now: float) -> None:
        self._metrics.declined(report.role, decline.reason)
        told = report.role is Role.INITIATOR and decline.reason is DeclineReason.QUARANTINED
        if not told and decline.reason not in HANDSHAKE_REASONS:
            return
        if self._once.due((report.peer.name, decline.reason), now) and self._rarely.due(decline.reason, now):
            who = "declined" if report.role is Role.RESPONDER else "was declined by"
            reason = DeclineReason(decline.reason).name.lower()
            self._log.warning(f"{who} {report.peer.name}", reason=reason, detail=decline.detail)

"""Count what this node does and export it to Prometheus; docs/metrics.md explains every metric.

One registry per `Metrics`, no global one. Label values come from enums only, and every combination is exported
from the start (at zero), so that rates and alerts need no `absent()`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from adpsgd_node.core.exchange.frame import DeclineReason
from adpsgd_node.core.exchange.outcome import Outcome, Role, SettleEnd
from adpsgd_node.core.exchange.quarantine import OffenceKind
from adpsgd_node.core.membership.member import MemberState, Phase

__all__ = ["CONTENT_TYPE", "FetchEnd", "Metrics", "PacketFault"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
STEPS_BUCKETS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class PacketFault(enum.Enum):
    """Why a message from outside was thrown away."""

    MALFORMED = "malformed"
    OVERSIZE = "oversize"
    PROTOCOL = "protocol"
    RUN = "run"
    IDENTITY = "identity"


class FetchEnd(enum.Enum):
    """How a donor's service to a joining node ended."""

    COMPLETE = "complete"
    BROKEN = "broken"
    """The stream broke, or this node could not go on."""
    BUSY = "busy"
    """Refused for now: the joiner was told when to ask again."""
    REFUSED = "refused"
    """Refused for good: another run or model, or no model here."""


class Metrics:
    """All metrics of one node, behind plain methods."""

    def __init__(self, *, version: str) -> None:
        # Process-wide in prometheus_client: no `*_created` twin for every counter.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        ProcessCollector(namespace="adpsgd", registry=registry)
        self._process = _Process(registry, version)
        self._training = _Training(registry)
        self._exchange = _Exchange(registry)
        self._server = _Server(registry)
        self._joining = _Joining(registry)
        self._membership = _Membership(registry)
        self._checkpoint = _Checkpoint(registry)

    def render(self) -> bytes:
        """Export everything in the text format whose type is `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    # The trainer, as its plane's header shows it.

    def trainer_started(self, *, restarted: bool) -> None:
        self._training.up.set(1)
        if restarted:
            self._training.restarts.inc()

    def trainer_exited(self) -> None:
        self._training.up.set(0)

    def trained(self, *, steps: int, samples: int, loss: float, accuracy: float) -> None:
        """Take over the trainer's own counters (totals of this boot) and its last loss and accuracy (NaN: none)."""
        self._training.steps.raise_to(steps)
        self._training.samples.raise_to(samples)
        self._training.loss.set(loss)
        self._training.accuracy.set(accuracy)

    def stepped(self, seconds: float) -> None:
        self._training.step_seconds.observe(seconds)

    def run_progressed(self, *, steps: int, samples: int, target_samples: int) -> None:
        """Set what all nodes together have done; target 0: none."""
        self._training.run_steps.set(steps)
        self._training.run_samples.set(samples)
        self._training.run_target_samples.set(target_samples)

    # Exchanges.

    def exchange_ended(
        self,
        *,
        role: Role,
        outcome: Outcome,
        seconds: float,
        sent_bytes: int,
        received_bytes: int,
        steps_during: int,
    ) -> None:
        """Count one exchange; time and steps are observed for complete ones only, bytes for all."""
        self._exchange.ended.labels(role.value, outcome.value).inc()
        self._exchange.sent.inc(sent_bytes)
        self._exchange.received.inc(received_bytes)
        if outcome is Outcome.COMPLETE:
            self._exchange.seconds.labels(role.value).observe(seconds)
            self._exchange.steps_during.observe(steps_during)

    def declined(self, role: Role, reason: DeclineReason) -> None:
        """Count a decline; as responder this node gave it, as initiator it got it."""
        self._exchange.declines.labels(role.value, _value(reason)).inc()

    def settled(self, end: SettleEnd) -> None:
        self._exchange.settles.labels(end.value).inc()

    def non_finite_chunk(self) -> None:
        self._exchange.non_finite.inc()

    def chunks_averaged(self, role: Role, count: int) -> None:
        """Count chunks that stay averaged on this side, for certain."""
        self._exchange.chunks.labels(role.value).inc(count)

    def quarantined(self, kind: OffenceKind) -> None:
        self._exchange.quarantines.labels(kind.value).inc()

    def quarantine_observed(self, peers: int) -> None:
        self._exchange.in_quarantine.set(peers)

    def consensus_measured(self, distance: float) -> None:
        """Set |theirs - mine| / |mine| of the latest exchanged pair."""
        self._exchange.distance.set(distance)

    def plane_observed(self, *, unfolded_chunks: int, unsettled_exchanges: int, steps_since_exchange: int) -> None:
        self._exchange.unfolded.set(unfolded_chunks)
        self._exchange.unsettled.set(unsettled_exchanges)
        self._exchange.steps_since.set(steps_since_exchange)

    def moved(self, *, sent_bytes: int, received_bytes: int) -> None:
        """Count chunk data that is part of no exchange: pushes and pulls of A-PSGD."""
        self._exchange.sent.inc(sent_bytes)
        self._exchange.received.inc(received_bytes)

    def update_applied(self, *, staleness: int) -> None:
        """Count a push that this node's server has applied, and the pushes of others since its worker had pulled."""
        self._server.applied.inc()
        self._server.staleness.observe(staleness)

    # Joining: what this node gives, and what it got when it joined itself.

    def model_given(self, count: int) -> None:
        self._joining.given.inc(count)

    def fetch_ended(self, end: FetchEnd) -> None:
        self._joining.fetches.labels(end.value).inc()

    def model_fetched(self, count: int) -> None:
        self._joining.fetched.inc(count)

    def chunk_refetched(self) -> None:
        self._joining.refetched.inc()

    # Checkpoints.

    def checkpoint_written(self, *, seconds: float) -> None:
        self._checkpoint.ended.labels("written").inc()
        self._checkpoint.seconds.observe(seconds)

    def checkpoint_failed(self) -> None:
        self._checkpoint.ended.labels("failed").inc()

    def checkpoint_kept(self, *, size_bytes: int, timestamp_s: float) -> None:
        """Set what the newest checkpoint is, and when (seconds since 1970) it was written."""
        self._checkpoint.size.set(size_bytes)
        self._checkpoint.timestamp.set(timestamp_s)

    # Membership and the daemon itself.

    def members_counted(self, states: Mapping[MemberState, int], phases: Mapping[Phase, int]) -> None:
        """Set the members by state, and the live ones by phase; those not named are zero."""
        for state in MemberState:
            self._membership.members.labels(_value(state)).set(states.get(state, 0))
        for phase in Phase:
            self._membership.phases.labels(_value(phase)).set(phases.get(phase, 0))

    def packet_rejected(self, fault: PacketFault) -> None:
        self._membership.rejected.labels(fault.value).inc()

    def serving(self, *, insecure: bool) -> None:
        self._process.insecure.set(insecure)

    def loop_lagged(self, seconds: float) -> None:
        """Observe how much later than asked a timer of the event loop ran."""
        self._process.loop_lag.observe(seconds)


class _Total:
    """A counter whose total is kept elsewhere."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._last = 0

    def raise_to(self, total: int) -> None:
        # A smaller total means that counting began anew (a trainer that could not resume): all of it is new.
        self._counter.inc(total - self._last if total >= self._last else total)
        self._last = total


class _Process:
    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        build = Gauge("adpsgd_build_info", "Version of adpsgd-node; always 1.", ["version"], registry=registry)
        build.labels(version).set(1)
        self.insecure = Gauge("adpsgd_insecure", "1 while peers talk without TLS beyond loopback.", registry=registry)
        self.loop_lag = Histogram(
            "adpsgd_event_loop_lag_seconds",
            "How late timers of the daemon's event loop ran.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )


class _Training:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.up = Gauge("adpsgd_trainer_up", "1 while the training script runs.", registry=registry)
        self.restarts = Counter("adpsgd_trainer_restarts_total", "Restarts of the training script.", registry=registry)
        self.steps = _Total(Counter("adpsgd_steps_total", "Local optimizer steps.", registry=registry))
        self.samples = _Total(Counter("adpsgd_samples_total", "Samples trained on locally.", registry=registry))
        self.loss = Gauge("adpsgd_loss", "Loss last logged by the script (NaN: none yet).", registry=registry)
        self.accuracy = Gauge("adpsgd_accuracy", "Accuracy last logged (NaN: none yet).", registry=registry)
        self.loss.set(math.nan)
        self.accuracy.set(math.nan)
        self.step_seconds = Histogram(
            "adpsgd_step_seconds", "Time from one local step to the next.", buckets=SECONDS_BUCKETS, registry=registry
        )
        self.run_steps = Gauge("adpsgd_run_steps", "Steps of all nodes, as known here.", registry=registry)
        self.run_samples = Gauge("adpsgd_run_samples", "Samples of all nodes, as known here.", registry=registry)
        self.run_target_samples = Gauge("adpsgd_run_target_samples", "Target of the run (0: none).", registry=registry)


class _Exchange:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.ended = Counter(
            "adpsgd_exchanges_total", "Exchanges, by role and outcome.", ["role", "outcome"], registry=registry
        )
        self.seconds = Histogram(
            "adpsgd_exchange_seconds",
            "Duration of complete exchanges.",
            ["role"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.sent = Counter("adpsgd_bytes_sent_total", "Bytes of chunk data sent to peers.", registry=registry)
        self.received = Counter("adpsgd_bytes_received_total", "Bytes of chunk data received.", registry=registry)
        self.distance = Gauge(
            "adpsgd_consensus_distance", "|theirs - mine| / |mine| of the latest exchanged pair.", registry=registry
        )
        self.distance.set(math.nan)
        self.steps_since = Gauge("adpsgd_steps_since_exchange", "Local steps since an exchange.", registry=registry)
        self.steps_during = Histogram(
            "adpsgd_steps_during_exchange",
            "Local steps that passed during one complete exchange.",
            buckets=STEPS_BUCKETS,
            registry=registry,
        )
        self.unfolded = Gauge("adpsgd_unfolded_chunks", "Chunks the trainer has yet to fold.", registry=registry)
        self.unsettled = Gauge("adpsgd_unsettled_exchanges", "Broken exchanges yet to be settled.", registry=registry)
        self.declines = Counter(
            "adpsgd_declines_total", "Declined exchanges, by role and reason.", ["role", "reason"], registry=registry
        )
        self.non_finite = Counter("adpsgd_non_finite_chunks_total", "Chunks refused: not finite.", registry=registry)
        self.chunks = Counter(
            "adpsgd_chunks_averaged_total", "Chunks averaged for good, by role.", ["role"], registry=registry
        )
        self.quarantines = Counter(
            "adpsgd_quarantines_total", "Peers put into quarantine, by reason.", ["reason"], registry=registry
        )
        self.in_quarantine = Gauge("adpsgd_quarantined_peers", "Peers in quarantine now.", registry=registry)
        self.settles = Counter("adpsgd_settles_total", "Settled exchanges, by outcome.", ["outcome"], registry=registry)
        for kind in OffenceKind:
            self.quarantines.labels(kind.value)
        for role in Role:
            self.chunks.labels(role.value)
            self.seconds.labels(role.value)
            for outcome in Outcome:
                self.ended.labels(role.value, outcome.value)
            for reason in DeclineReason:
                self.declines.labels(role.value, _value(reason))
        for end in SettleEnd:
            self.settles.labels(end.value)


class _Server:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.applied = Counter(
            "adpsgd_server_pushes_total", "Pushes applied by this parameter server.", registry=registry
        )
        self.staleness = Histogram(
            "adpsgd_server_staleness_pushes",
            "Pushes of others applied between a worker's pull and its push.",
            buckets=STEPS_BUCKETS,
            registry=registry,
        )


class _Joining:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.given = Counter("adpsgd_model_bytes_given_total", "Bytes of the model given.", registry=registry)
        self.fetches = Counter(
            "adpsgd_fetches_total", "Ranges of the model asked of this node, by end.", ["outcome"], registry=registry
        )
        self.fetched = Counter("adpsgd_model_bytes_fetched_total", "Bytes of the model fetched.", registry=registry)
        self.refetched = Counter("adpsgd_refetched_chunks_total", "Chunks that came twice.", registry=registry)
        for end in FetchEnd:
            self.fetches.labels(end.value)


class _Membership:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.members = Gauge("adpsgd_members", "Members, this node included.", ["state"], registry=registry)
        self.phases = Gauge("adpsgd_member_phases", "Live members, by phase.", ["phase"], registry=registry)
        self.rejected = Counter(
            "adpsgd_rejected_packets_total", "Messages thrown away, by reason.", ["reason"], registry=registry
        )
        for state in MemberState:
            self.members.labels(_value(state))
        for phase in Phase:
            self.phases.labels(_value(phase))
        for fault in PacketFault:
            self.rejected.labels(fault.value)


class _Checkpoint:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.ended = Counter("adpsgd_checkpoints_total", "Checkpoints, by outcome.", ["outcome"], registry=registry)
        for outcome in ("written", "failed"):
            self.ended.labels(outcome)
        self.seconds = Histogram(
            "adpsgd_checkpoint_seconds", "Time to write a checkpoint.", buckets=SECONDS_BUCKETS, registry=registry
        )
        self.size = Gauge("adpsgd_checkpoint_bytes", "Size of the newest checkpoint.", registry=registry)
        self.timestamp = Gauge(
            "adpsgd_checkpoint_timestamp_seconds", "When the newest checkpoint was written.", registry=registry
        )
        self.size.set(math.nan)
        self.timestamp.set(math.nan)


def _value(member: enum.IntEnum) -> str:
    return member.name.lower()

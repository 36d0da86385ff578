"""Say how a node is doing: for the CLI, for people over HTTP, and for Prometheus."""

from __future__ import annotations

from collections import Counter

from adpsgd_node.core.exchange.outcome import Role
from adpsgd_node.core.membership.member import Phase
from adpsgd_node.daemon.node import Node
from adpsgd_node.ids import Address
from adpsgd_node.setting import choice
from adpsgd_node.telemetry.metrics import Metrics
from adpsgd_node.wire.admin import MemberStatus, Status

__all__ = ["Report"]


class Report:
    """What can be told of one node at any moment."""

    def __init__(self, node: Node, metrics: Metrics, *, version: str, insecure: bool, started: float) -> None:
        self.http_address = Address("")
        self.restarts = 0
        self._node = node
        self._metrics = metrics
        self._version = version
        self._insecure = insecure
        self._started = started

    def status(self, now: float) -> Status:
        """Describe the node and the members it knows. `now`: the loop's time."""
        node = self._node
        swim, header = node.membership.swim, node.training.plane.header if node.training.plane else None
        totals = swim.progress.totals()
        steps, samples = node.training.progress()
        return Status(
            self_member=swim.self_member,
            run_id=node.run_id,
            version=self._version,
            insecure=self._insecure,
            algorithm=choice(node.config.algorithm),
            topology=choice(node.config.exchange.topology),
            codec=choice(node.config.exchange.codec),
            uptime_s=now - self._started,
            step=steps,
            samples=samples,
            samples_per_s=node.training.samples_per_s if node.phase is Phase.TRAINING else 0.0,
            loss=header.loss if header else float("nan"),
            accuracy=header.accuracy if header else float("nan"),
            exchanges_initiated=node.account.exchanges[Role.INITIATOR],
            exchanges_responded=node.account.exchanges[Role.RESPONDER],
            consensus_distance=node.account.consensus_distance,
            steps_total=totals.steps,
            samples_total=totals.samples,
            samples_target=node.training.target_samples,
            unsettled=node.engine.unsettled,
            problem=self.problem() or node.checkpointing.problem,  # which does not keep it from taking part
            members=self._members(),
            http_address=self.http_address,
            trainer_pid=node.link.pid if node.link else 0,
            trainer_restarts=self.restarts,
            output=str(node.config.folder),
            checkpoint=str(node.checkpointing.newest() or ""),
            checkpoint_age_s=node.checkpointing.age_s(now),
        )

    def problem(self) -> str:
        """Say why the node does not take part fully; empty when it does."""
        return self._hindrance() or self._node.gossip.problem

    def _hindrance(self) -> str:
        node = self._node
        if node.fatal is not None:
            return str(node.fatal)
        if node.training.poison:
            return f"exchanges with nobody: {node.training.poison}"
        if node.phase is Phase.JOINING:
            return "looking for the run: no seed has answered yet"
        if refused := node.engine.refused_by_peers():
            return f"{refused}; lower its learning rate and restart this node: it then takes over a peer's model"
        return ""

    def unready(self) -> str | None:
        """Say why the node does not serve the run; None when it has joined and holds the model.

        Whoever replaces nodes one after the other waits for this: before it, the others would be the only ones to hold
        what the run has learnt.
        """
        node = self._node
        if node.engine.stopping:
            return "stopping"
        if hindrance := self._hindrance():
            return hindrance
        if node.training.has_model:
            return None
        initializing = node.phase is Phase.INITIALIZING
        return "no model yet: " + ("it is being fetched" if initializing else "no script has joined")

    def text(self, now: float) -> str:
        """Describe the node to a person."""
        status = self.status(now)
        lines = [
            f"{status.self_member.id} of run {status.run_id}: {status.self_member.phase.name.lower()}",
            f"step {status.step}, run {status.samples_total} of {status.samples_target or 'no target'} samples",
            *(f"problem: {status.problem}" for _ in range(bool(status.problem))),
            "INSECURE: peers are neither authenticated nor encrypted" if status.insecure else "",
            *(f"{entry.member} steps={entry.steps} samples={entry.samples}" for entry in status.members),
        ]
        return "\n".join(line for line in lines if line) + "\n"

    def metrics(self) -> bytes:
        """Bring the gauges up to date and render all metrics."""
        node, swim = self._node, self._node.membership.swim
        plane = node.training.plane
        steps, samples = node.training.progress()
        nan = float("nan")
        loss, accuracy = (plane.header.loss, plane.header.accuracy) if plane else (nan, nan)
        self._metrics.trained(steps=steps, samples=samples, loss=loss, accuracy=accuracy)
        totals = swim.progress.totals()
        self._metrics.run_progressed(
            steps=totals.steps, samples=totals.samples, target_samples=node.training.target_samples
        )
        self._metrics.plane_observed(
            unfolded_chunks=plane.unfolded_count() if plane else 0,
            unsettled_exchanges=node.engine.unsettled,
            steps_since_exchange=node.account.steps_since_exchange(),
        )
        self._metrics.quarantine_observed(node.engine.quarantined)
        members = swim.members()
        self._metrics.members_counted(
            Counter(member.state for member in members), Counter(member.phase for member in members if member.live)
        )
        return self._metrics.render()

    def _members(self) -> tuple[MemberStatus, ...]:
        progress, neighbors = self._node.membership.swim.progress, set(self._node.gossip.neighbors)
        return tuple(
            MemberStatus(
                member,
                entry.steps,
                entry.samples,
                member.name in neighbors,
                self._node.engine.quarantine_of(member.id),
            )
            for member in self._node.membership.swim.members()
            for entry in [progress.of(member.id)]
        )

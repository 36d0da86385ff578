"""Join policy, topology and engine: with whom this node exchanges now, and how far apart the models are."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from adpsgd_node.core.agreement import Agreement
from adpsgd_node.core.algorithms.ad_psgd import (
    Activity,
    ActivityChanged,
    AdPsgd,
    ExchangeEnded,
    Far,
    NeighborsChanged,
    StartExchange,
    Stepped,
)
from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.membership.member import Member, Phase
from adpsgd_node.core.topology import Topology, diameter_bound
from adpsgd_node.daemon.driver import Driver
from adpsgd_node.daemon.exchange_io import ExchangeEngine
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.settings import ExchangeConfig
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.ids import NodeId

__all__ = ["HOLDING", "SETTLED_PHASES", "Gossip"]

HOLDING = frozenset({Phase.TRAINING, Phase.SETTLING, Phase.AGREED, Phase.FINISHED})
"""Phases in which a node holds the run's model and exchanges it: the topology is laid over these members."""

SETTLED_PHASES = frozenset({Phase.SETTLING, Phase.AGREED, Phase.FINISHED})
"""Phases in which a node does not step any more."""


class Gossip:
    """The exchanging of one node."""

    def __init__(
        self,
        identity: NodeId,
        config: ExchangeConfig,
        topology: Topology,
        tolerance: float,
        engine: ExchangeEngine,
        tasks: Tasks,
        live: Callable[[], Sequence[Member]],
        rng: random.Random,
    ) -> None:
        self.neighbors: tuple[str, ...] = ()
        """Names of the members next to this node, sorted; empty while it holds no model."""
        self._identity = identity
        self._config = config
        self._topology = topology
        self._agreement = Agreement(tolerance)
        self._engine = engine
        self._tasks = tasks
        self._live = live
        self._activity = Activity.STOPPED
        self._names: tuple[str, ...] = ()
        self._diameter = 0
        self._policy: Driver[Stepped | NeighborsChanged | ActivityChanged | Far | ExchangeEnded, StartExchange] = (
            Driver(AdPsgd(exchanges_per_step=config.exchanges_per_step, rng=rng), self._start)
        )

    def close(self) -> None:
        """Start no exchange any more."""
        self._policy.close()

    def members_changed(self) -> None:
        """Lay the topology anew over the members that hold the model."""
        names = self._topology.placed([member.name for member in self._live() if member.phase in HOLDING])
        own = self._identity.name
        if names != self._names:
            self._names = names
            self.neighbors = self._topology.neighbors(names, own) if own in names else ()
            self._diameter = diameter_bound(self._topology, names, own) if self.neighbors else 0
        self._policy.post(NeighborsChanged(self.neighbors))

    def act(self, activity: Activity) -> None:
        """Set what this node is doing."""
        self._activity = activity
        self._policy.post(ActivityChanged(activity))

    def stepped(self, steps: int) -> None:
        self._policy.post(Stepped(steps))

    def note(self, report: ExchangeReport) -> None:
        """Take in an exchange of either role."""
        if report.moved and self._activity is Activity.SETTLING:
            complete = report.outcome is Outcome.COMPLETE
            self._agreement.exchanged(report.peer.name, report.distance, complete=complete)

    def all_settled(self) -> bool:
        """Tell whether every member that holds the model has stopped stepping, as far as is known here."""
        return all(member.phase in SETTLED_PHASES for member in self._live() if member.phase in HOLDING)

    def judge(self) -> list[str]:
        """Return the neighbors not known to be within the tolerance, and have the policy meet them first."""
        settled = self.all_settled()
        if not settled:
            self._agreement.reset()
        far = self._agreement.far(self.neighbors, self._diameter)
        # While others still step there is nothing to hurry for: it would only take their processors from them.
        self._policy.post(Far(tuple(far) if settled else ()))
        return far

    def consensus_bound(self) -> float:
        """Return the largest known distance to a neighbor, relative; infinite where none is known."""
        return self._agreement.widest(self.neighbors)

    def _start(self, action: StartExchange) -> None:
        self._tasks.start(f"exchange with {action.peer}", self._exchange(action.peer))

    async def _exchange(self, name: str) -> None:
        outcome = Outcome.UNREACHABLE
        try:
            member = next((m for m in self._live() if m.name == name), None)
            if member is not None and self._engine.may_exchange_with(member.id):
                # At the end every bit counts: two models that round to the same bf16 would never come closer.
                settling = self._activity is Activity.SETTLING
                codec = CodecName.FP32 if settling else self._config.codec
                outcome = (await self._engine.initiate(member.id, member.address, codec)).outcome
        finally:
            self._policy.post(ExchangeEnded(name, outcome))

"""Join policy, topology and engine: with whom this node exchanges now, and how far apart the models are."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from adpsgd_node.core.agreement import Agreement
from adpsgd_node.core.algorithms.ad_psgd import (
    Activity,
    ActivityChanged,
    AdPsgd,
    Event,
    ExchangeEnded,
    Far,
    NeighborRenewed,
    NeighborsChanged,
    StartExchange,
    Stepped,
)
from adpsgd_node.core.algorithms.d_psgd import opens
from adpsgd_node.core.exchange.frame import CodecName, DeclineReason
from adpsgd_node.core.exchange.outcome import Outcome, Role
from adpsgd_node.core.membership.member import HOLDING, SETTLED_PHASES, Member
from adpsgd_node.core.topology import Reach, Split, Topology, metropolis_weight, reach, split
from adpsgd_node.daemon.acceleration import Momentum, momentum_at
from adpsgd_node.daemon.driver import Driver
from adpsgd_node.daemon.exchange_io import ExchangeEngine
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.rounds import Around, Rounds
from adpsgd_node.daemon.settings import ExchangeConfig, PairingName
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.ids import NodeId
from adpsgd_node.setting import choice
from adpsgd_node.telemetry.log import EventLog

__all__ = ["Gossip"]

NOWHERE = Reach((), 0, ())
"""Around a node that does not hold the model."""
NO_SPLIT = Split(frozenset(), ())
"""Where every node may start exchanges."""

MAX_NAMED = 5
"""Members named in a complaint; the others are counted."""


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
        mixed: Callable[[int], None] | None = None,
    ) -> None:
        """`mixed` is told when the round after a step is over: D-PSGD; None: AD-PSGD, which has no rounds."""
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
        self._ids: dict[str, NodeId] = {}
        self._outbound_only: frozenset[str] = frozenset()
        self._reach = NOWHERE
        self._split = NO_SPLIT
        self._momentum: Momentum | None = None
        self._weights: dict[str, float] = {}
        self._log = EventLog("gossip")
        self._policy: Driver[Event, StartExchange] = Driver(
            AdPsgd(exchanges_per_step=config.exchanges_per_step, rng=rng), self._start
        )
        self._rounds = (
            None if mixed is None else Rounds(rng, Around(open=self._open, freeze=engine.freeze, mixed=mixed))
        )

    def close(self) -> None:
        """Start no exchange any more."""
        self._policy.close()
        if self._rounds is not None:
            self._rounds.close()

    def members_changed(self) -> None:
        """Lay the topology anew over the members that hold the model."""
        holders = [member for member in self._live() if member.phase in HOLDING]
        names = self._topology.placed([member.name for member in holders])
        outbound_only = frozenset(member.name for member in holders if member.outbound_only)
        if (names, outbound_only) != (self._names, self._outbound_only):
            self._names, self._outbound_only = names, outbound_only
            self._lay()
        before, self._ids = self._ids, {member.name: member.id for member in self._live()}
        for name in self.neighbors:
            if name in before and before[name] != self._ids.get(name):
                self._policy.post(NeighborRenewed(name))
                if self._rounds is not None:
                    self._rounds.renewed(name)
        self._call()
        self._meet()

    def _meet(self) -> None:
        """Tell the rounds whom this node mixes with. Who keeps away from it says so whenever it is asked."""
        if self._rounds is None:
            return
        weights = {name: self._weights[name] for name in self.neighbors if not self._quarantined(name)}
        opened = frozenset(name for name in weights if self._opens(name))
        self._rounds.meet(weights, opened, self._outbound_only.intersection(weights))

    def _call(self) -> None:
        """Tell the policy whom this node may start exchanges with."""
        candidates = () if self._only_answers() else self.neighbors
        called = (name for name in candidates if name not in self._outbound_only and not self._quarantined(name))
        self._policy.post(NeighborsChanged(tuple(called)))

    def _only_answers(self) -> bool:
        """Tell whether this node is on the side of those that start no exchange, until nobody steps any more.

        Then all start some. An edge is close once both of its ends have seen so, each since it knows that all have
        settled: one that only answered would depend on neighbors that may have seen enough, and then draw at random
        whom they meet.
        """
        active = self._split.active
        if not active or self._identity.name in active or self._never_called():
            return False
        return self._activity is not Activity.SETTLING or not self.all_settled()

    @property
    def size(self) -> int:
        """Members that the topology is laid over."""
        return len(self._names)

    def momentum(self) -> Momentum:
        """Return how strong the momentum of this node's parameters is to be, if they have any."""
        if self._momentum is None:
            self._momentum = momentum_at(self._topology, self._names, self._identity.name, self._outbound_only)
        return self._momentum

    @property
    def round(self) -> int:
        """The round of D-PSGD that this node is in; 0: none."""
        return 0 if self._rounds is None else self._rounds.round

    def admission(self, peer: NodeId, round_: int) -> AbstractAsyncContextManager[None]:
        """Have an exchange that a peer has opened wait for its round; without rounds it goes on at once."""
        return contextlib.nullcontext() if self._rounds is None else self._rounds.admission(peer, round_)

    def share(self, peer: NodeId) -> float:
        """Return which part of the difference an exchange with a peer applies: 1 brings both to the middle."""
        rounds = self._rounds if self._activity is Activity.STEPPING else None
        return 1.0 if rounds is None else rounds.share(peer)

    @property
    def problem(self) -> str:
        """Say which members cannot come to agree with this node, or be paired as asked; empty when all can."""
        topology = choice(self._config.topology)
        if self._reach.cut_off:
            return (
                f"no exchange leads from this node to {_named(self._reach.cut_off)}: outbound-only nodes never meet, "
                f"and the {topology} topology has no way round; set topology = complete, and let more nodes be dialed"
            )
        if self._config.pairing is PairingName.ANY or self.all_settled():
            return ""  # at the end every node starts exchanges anyway, and then they leave one by one
        if self._split.odd_cycle:
            return (
                f"every node starts exchanges although pairing = bipartite: in the {topology} topology of the members "
                f"present {_named(self._split.odd_cycle)} make a cycle of odd length; it is split again once there is "
                "none"
            )
        if self._never_called():
            return (
                f"every node starts exchanges although pairing = bipartite: {_named(self._never_called())} would only "
                "answer, and cannot be called; let all nodes be dialed"
            )
        return ""

    def _lay(self) -> None:
        own, before, self._momentum = self._identity.name, self.problem, None
        holding = own in self._names
        self._reach = reach(self._topology, self._names, own, self._outbound_only) if holding else NOWHERE
        self.neighbors = self._reach.neighbors
        bipartite = holding and self._config.pairing is PairingName.BIPARTITE
        self._split = split(self._topology, self._names) if bipartite else NO_SPLIT
        if self._rounds is not None:
            self._weights = {name: self._weight(name) for name in self.neighbors}
        if self.problem and not before:
            self._log.warning(self.problem)

    def _never_called(self) -> list[str]:
        """Return those of the members that nobody can call who, split up, would not call either."""
        active = self._split.active
        return sorted(self._outbound_only.intersection(self._names) - active) if active else []

    def _weight(self, name: str) -> float:
        other = reach(self._topology, self._names, name, self._outbound_only)
        return metropolis_weight(len(self.neighbors), len(other.neighbors))

    def _opens(self, name: str) -> bool:
        """Tell whether this node opens an edge's exchanges; one that nobody can dial opens all of its own."""
        own = self._identity.name
        return name not in self._outbound_only and (own in self._outbound_only or opens(own, name))

    def act(self, activity: Activity) -> None:
        """Set what this node is doing."""
        self._activity = activity
        if self._split.active:
            self._call()
        if self._rounds is not None and activity is Activity.STEPPING:
            self._policy.post(ActivityChanged(Activity.STOPPED))
            self._rounds.resume()
            return
        if self._rounds is not None:
            self._rounds.pause()
        self._policy.post(ActivityChanged(activity))

    def stepped(self, steps: int, step: int) -> None:
        """Take in that the trainer has done more steps, and waits for the round after number `step`; 0: for none."""
        self._policy.post(Stepped(steps))
        if self._rounds is not None and step:
            self._rounds.stepped(step)

    def note(self, report: ExchangeReport) -> None:
        """Take in an exchange of either role."""
        if report.moved and self._activity is Activity.SETTLING:
            complete = report.outcome is Outcome.COMPLETE
            self._agreement.exchanged(report.peer.name, report.distance, complete=complete)
        if self._rounds is not None and report.role is Role.RESPONDER and report.outcome is Outcome.PARTIAL:
            self._rounds.cut_short(report.peer.name)

    def all_settled(self) -> bool:
        """Tell whether every member that holds the model has stopped stepping, as far as is known here."""
        return all(member.phase in SETTLED_PHASES for member in self.holders())

    def holders(self) -> list[Member]:
        """Return the live members that hold the model, without those in quarantine: they are not waited for."""
        return [m for m in self._live() if m.phase in HOLDING and not self._engine.quarantine_of(m.id)]

    def judge(self) -> list[str]:
        """Return the neighbors not known to be within the tolerance, and have the policy meet them first."""
        settled = self.all_settled()
        if not settled:
            self._agreement.reset()
        far = self._agreement.far(self._together(), self._reach.diameter_bound)
        # While others still step there is nothing to hurry for: it would only take their processors from them.
        self._policy.post(Far(tuple(far) if settled else ()))
        return [*far, *self._reach.cut_off]

    def consensus_bound(self) -> float:
        """Return the largest known distance to a neighbor, relative; infinite where none is known."""
        together = self._together()
        if self._reach.cut_off or (self.neighbors and not together):
            return math.inf  # it keeps away from all of them, or they from it
        return self._agreement.widest(together)

    def _together(self) -> list[str]:
        """Return the neighbors that this node can come to agree with."""
        return [
            name for name in self.neighbors if name not in self._ids or not self._engine.apart_from(self._ids[name])
        ]

    def _quarantined(self, name: str) -> bool:
        return name in self._ids and bool(self._engine.quarantine_of(self._ids[name]))

    def _start(self, action: StartExchange) -> None:
        def ended(report: ExchangeReport | None) -> None:
            self._policy.post(ExchangeEnded(action.peer, report.outcome if report else Outcome.UNREACHABLE))

        self._tasks.start(f"exchange with {action.peer}", self._exchange(action.peer, ended))

    def _open(self, name: str) -> None:
        rounds = self._rounds
        assert rounds is not None

        def ended(report: ExchangeReport | None) -> None:
            if report is None:
                rounds.opened(name, Outcome.UNREACHABLE, 0)
            elif report.decline is not None and report.decline.reason is DeclineReason.QUARANTINED:
                rounds.opened(name, Outcome.PARTIAL, 0)  # it keeps away, and waits for nothing: this was all for now
            else:
                rounds.opened(name, report.outcome, report.round)

        self._tasks.start(f"round with {name}", self._exchange(name, ended))

    async def _exchange(self, name: str, ended: Callable[[ExchangeReport | None], None]) -> None:
        report = None
        try:
            member = next((m for m in self._live() if m.name == name), None)
            if member is not None and not member.outbound_only and self._engine.may_exchange_with(member.id):
                # At the end every bit counts: two models that round to the same bf16 would never come closer.
                settling = self._activity is Activity.SETTLING
                codec = CodecName.FP32 if settling else self._config.codec
                report = await self._engine.initiate(member.id, member.address, codec)
        finally:
            ended(report)


def _named(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")

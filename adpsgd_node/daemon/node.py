"""One node: its phases, and what leads from one to the next.

JOINING --joined--> IDLE --trainer attached--> INITIALIZING --adopted or founded--> TRAINING
TRAINING --trainer stops stepping--> SETTLING <--neighbors close or not--> AGREED --model written--> FINISHED
any that holds a model --not finite--> POISONED --finite again--> TRAINING
"""

from __future__ import annotations

import asyncio
import os
import random

from adpsgd_node.core.algorithms.ad_psgd import Activity
from adpsgd_node.core.exchange.arbiter import HANDSHAKE_REASONS
from adpsgd_node.core.exchange.frame import Decline, DeclineReason
from adpsgd_node.core.exchange.outcome import Outcome, Role, SettleEnd
from adpsgd_node.core.membership.config import membership_preset
from adpsgd_node.core.membership.event import Advanced, Leave, PhaseChanged
from adpsgd_node.core.membership.member import Member, Phase
from adpsgd_node.core.membership.packet import RefusalReason
from adpsgd_node.core.membership.roster import Identity
from adpsgd_node.core.membership.swim import Swim
from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.core.topology import topology_named
from adpsgd_node.daemon.adopt import Adopter
from adpsgd_node.daemon.donor import Donor, Holding
from adpsgd_node.daemon.exchange_io import ExchangeEngine, Surroundings
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.gossip import HOLDING, SETTLED_PHASES, Gossip
from adpsgd_node.daemon.membership_io import MembershipHooks, MembershipIo
from adpsgd_node.daemon.settings import NodeConfig, TopologyName
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.daemon.trainer_link import LinkHost, TrainerLink
from adpsgd_node.daemon.training import Training
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.errors import AdpsgdError, PoisonedError
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId
from adpsgd_node.net.transport import ConverseHandler, Method, StreamMethod, Transport, UnaryHandler
from adpsgd_node.plane import Plane
from adpsgd_node.plane.header import Command
from adpsgd_node.telemetry.log import EventLog, OncePer
from adpsgd_node.telemetry.metrics import Metrics, PacketFault
from adpsgd_node.wire.limits import MAX_PROGRESS_ENTRIES
from adpsgd_node.wire.trainer import Agreed, Attach, Attached, Go

__all__ = ["Node"]

LOG_AGAIN_S = 300.0


class Node:
    """Everything one node is, but its process: sockets are bound and signals handled by the app."""

    def __init__(
        self,
        config: NodeConfig,
        identity: NodeId,
        address: Address,
        transport: Transport,
        metrics: Metrics,
        tasks: Tasks,
    ) -> None:
        self.config = config
        self.identity = identity
        self.run_id = RunId(config.run)
        self.phase = Phase.JOINING
        self.watch = Watch()
        self.fatal: AdpsgdError | None = None
        self.consensus_distance = float("nan")
        self.exchanges = {Role.INITIATOR: 0, Role.RESPONDER: 0}
        self.link: TrainerLink | None = None
        self.model_path = ""
        self.agreed: Agreed | None = None
        self._metrics = metrics
        self._tasks = tasks
        self._log = EventLog("node")
        self._once = OncePer(LOG_AGAIN_S)
        self._stopped_since: float | None = None
        self._step_of_last_exchange = 0
        self._rng = random.Random(f"{config.seed}/{identity.name}")
        self.training = Training(config.target, config.exchange.chunk_bytes)
        swim = Swim(
            Identity(id=identity, address=address, run_id=self.run_id, protocol=PROTOCOL_VERSION),
            membership_preset(config.network.membership.name.lower()),
            self._rng,
            seeds=config.network.seeds,
        )
        hooks = MembershipHooks(
            changed=self._member_changed,
            joined=self._joined,
            progressed=self.refresh,
            rejected=lambda reason: metrics.packet_rejected(_FAULTS.get(reason, PacketFault.IDENTITY)),
            malformed=lambda: metrics.packet_rejected(PacketFault.MALFORMED),
            fatal=self.fail,
        )
        self.membership = MembershipIo(swim, transport, tasks, hooks, config.network.join_timeout_s)
        around = Surroundings(
            address_of=self.membership.address_of,
            progress=self._news,
            report=self._reported,
            poisoned=lambda chunk: self._poison(f"chunk {chunk} of its parameters is not finite"),
            settled=self._settled,
        )
        self.engine = ExchangeEngine(identity, self.run_id, transport, config.exchange, around, tasks)
        edges = ",".join(f"{one}:{other}" for one, other in config.exchange.edges) or None
        topology = topology_named(config.exchange.topology.name.lower(), edges)
        if config.exchange.topology is TopologyName.CUSTOM:
            topology.neighbors((identity.name,), identity.name)  # this node must be in the list
        self.gossip = Gossip(
            identity, config.exchange, topology, config.target.tolerance, self.engine, tasks, swim.live, self._rng
        )
        self._adopter = Adopter(identity, self.run_id, transport, self.membership.peers, self._rng)
        self._donor = Donor(identity, self.run_id, self._holding)

    def unary(self) -> dict[Method, UnaryHandler]:
        """Return what answers peers' calls."""
        return {
            Method.DELIVER: self.membership.deliver,
            Method.JOIN: self.membership.join,
            Method.SETTLE: self.engine.settle,
            Method.OFFER: self._donor.offer,
        }

    def streams(self) -> dict[StreamMethod, ConverseHandler]:
        """Return what serves peers' streams."""
        return {StreamMethod.CONVERSE: self.engine.converse, StreamMethod.FETCH: self._donor.fetch}

    def link_host(self) -> LinkHost:
        """Return what a trainer's control socket is served with."""
        return LinkHost(
            attach=self._attach,
            prepare=self._prepare,
            stepped=self._stepped,
            settle=self._settle,
            saved=self._saved,
            lost=self._trainer_lost,
        )

    def fail(self, error: AdpsgdError) -> None:
        """Note why this node cannot go on; the app ends it."""
        if self.fatal is None:
            self.fatal = error
            if self.link is not None:
                self._tasks.start("tell the trainer", self.link.failed(error))
        self.watch.notify()

    # Phases

    def _enter(self, phase: Phase) -> None:
        if phase is self.phase:
            return
        self._log.debug("phase", before=self.phase.name, now=phase.name)
        self.phase = phase
        self.engine.ready = phase in HOLDING
        self.engine.poisoned = phase is Phase.POISONED
        self.membership.post(PhaseChanged(phase))
        self.gossip.members_changed()
        if phase in SETTLED_PHASES:
            self.gossip.act(Activity.SETTLING)
        elif phase is Phase.TRAINING:
            attached = self.link is not None and self.link.pid
            self.gossip.act(Activity.STEPPING if attached else Activity.IDLE)
        else:
            self.gossip.act(Activity.STOPPED)
        self._judge()
        self.watch.notify()

    def _joined(self) -> None:
        if self.phase is Phase.JOINING:
            self._enter(Phase.IDLE)

    def _attach(self, attach: Attach) -> tuple[Plane, Attached]:
        plane, resumed = self.training.attach(attach.tensors, attach.dataset_size)
        if not resumed:
            self.engine.use(plane)
        plane.header.command = Command.RUN
        self.refresh()
        return plane, Attached(
            daemon_pid=os.getpid(),
            node=self.identity.name,
            run_id=self.run_id,
            schema=plane.layout.schema,
            chunk_bytes=plane.layout.chunk_bytes,
            resumed=resumed,
            output=str(self.config.folder.absolute()),
        )

    async def _prepare(self) -> Go:
        await self.watch.until(lambda: self.phase is not Phase.JOINING or self.fatal is not None)
        if self.fatal is not None:
            raise self.fatal
        plane = self.training.plane
        assert plane is not None
        if self.training.has_model:
            self._log.info("the trainer goes on with the live plane", step=plane.header.step)
            self._resume()
            return Go()
        self._enter(Phase.INITIALIZING)
        try:
            donor = await self._adopter.adopt_or_found(plane)
        except AdpsgdError as error:
            self.fail(error)
            raise
        if donor is None:
            self._log.info("starts with its own initial parameters")
        else:
            self._log.info("adopted the parameters of a peer", donor=donor)
        self.training.has_model = True
        self._enter(Phase.TRAINING)
        self.refresh()
        return Go(adopted=donor is not None, donor=donor.name if donor else "")

    def _resume(self) -> None:
        self._enter(Phase.TRAINING)
        self.gossip.act(Activity.STEPPING)
        self.refresh()

    def _stepped(self) -> None:
        loop_time = asyncio.get_running_loop().time()
        news = self.training.look(loop_time)
        for seconds in news.step_seconds:
            self._metrics.stepped(seconds)
        if self.training.poison:
            self._poison(self.training.poison)
            if self.training.recovered(loop_time):
                self._log.info("loss and parameters are finite again; exchanging goes on")
                self._enter(Phase.TRAINING)
        self.membership.post(Advanced(*self.training.progress()))
        self.refresh()
        if news.steps and not self.training.poison:
            self.gossip.stepped(news.steps)

    def refresh(self) -> None:
        """Show the trainer how far the run is, and stop it when the target is reached."""
        totals = self.membership.swim.progress.totals()
        self.training.publish(totals.steps, totals.samples)
        target = self.training.target_samples
        if target and totals.samples >= target:
            self.training.command(Command.STOP)

    def _settle(self) -> None:
        self._stepped()
        if self.training.poison and not self.training.recovered(float("inf")):
            error = PoisonedError(f"{self.training.poison}: this node has stopped exchanging and has no model to write")
            if self.link is not None:
                self._tasks.start("tell the trainer", self.link.failed(error))
            return
        self._log.info("has stopped stepping; settling", step=self.training.progress()[0])
        self._enter(Phase.SETTLING)
        self._tasks.start("finish", self._finish())

    async def _finish(self) -> None:
        """Wait until the run's models agree, and tell the trainer."""
        settled = await self._all_stop()
        agreed = settled and await self.watch.until(self._all_agreed, self.config.target.finish_timeout_s)
        bound = self.gossip.consensus_bound()
        if not agreed:
            self._log.warning(
                "the models do not agree within the tolerance yet; writing this node's as it is",
                waited_s=self.config.target.finish_timeout_s,
                consensus_distance=bound,
                tolerance=self.config.target.tolerance,
            )
        totals = self.membership.swim.progress.totals()
        members = sum(member.phase in HOLDING for member in self.membership.swim.live())
        self.agreed = Agreed(
            consensus_distance=bound, steps_total=totals.steps, samples_total=totals.samples, members=members
        )
        if self.link is not None:
            await self.link.agreed(self.agreed)

    async def _all_stop(self) -> bool:
        """Wait until nobody steps any more, for as long as the run makes progress; False when it hangs."""
        progress = self.membership.swim.progress
        while True:
            before = progress.totals()
            if await self.watch.until(self.gossip.all_settled, self.config.target.finish_timeout_s):
                return True
            if progress.totals() == before:
                return False

    def _judge(self) -> None:
        """See whether this node's neighbors are close, while it does not step."""
        if self.phase not in SETTLED_PHASES:
            return
        if self.all_finished():
            self.gossip.act(Activity.STOPPED)  # nobody needs this node to agree with any more
            return
        far = self.gossip.judge()
        settled = self.gossip.all_settled()
        if self.phase is Phase.SETTLING and settled and not far:
            self._enter(Phase.AGREED)
        elif self.phase is Phase.AGREED and (far or not settled):
            self._enter(Phase.SETTLING)

    def _all_agreed(self) -> bool:
        agreed = (Phase.AGREED, Phase.FINISHED)
        return all(m.phase in agreed for m in self.membership.swim.live() if m.phase in HOLDING)

    def all_finished(self) -> bool:
        """Tell whether every live member that held the model has written it."""
        return all(m.phase is Phase.FINISHED for m in self.membership.swim.live() if m.phase in HOLDING)

    def _saved(self, path: str) -> None:
        self.model_path = path
        self._log.info("wrote the model", path=path)
        self._enter(Phase.FINISHED)

    def _trainer_lost(self) -> None:
        self.link = None
        self._metrics.trainer_exited()
        if self.training.poison:
            self.training.discard()
            self._enter(Phase.IDLE)
        elif self.phase is Phase.TRAINING:
            self.gossip.act(Activity.IDLE)
        elif self.phase is Phase.INITIALIZING:
            self._enter(Phase.IDLE)
        self.watch.notify()

    def _poison(self, why: str) -> None:
        self.training.poisoned(why)
        if self.phase in HOLDING:
            self._log.error(
                "this node stops exchanging; the others go on without it. Lower the learning rate or mend its data, "
                "then restart the script: it adopts a peer's model",
                why=self.training.poison,
            )
            self._enter(Phase.POISONED)

    # What others tell

    def _member_changed(self, member: Member, before: Member | None) -> None:
        if before is not None and before.id != member.id:
            self.engine.peer_over(before.id)
        if not member.live:
            # LEFT means that it settled what it had; DEAD may only be frozen.
            gone = member.state.name == "LEFT"
            (self.engine.peer_over if gone else self.engine.peer_dead)(member.id)
        elif self.phase is Phase.JOINING:
            self._joined()  # someone of the run came to us: none of our seeds needs to be up any more
        self.gossip.members_changed()
        self._judge()
        self.watch.notify()

    def _news(self) -> tuple[ProgressEntry, ...]:
        progress = self.membership.swim.progress
        own = progress.of(self.identity)
        return own, *progress.sample(MAX_PROGRESS_ENTRIES - 1, self._rng, without=self.identity)

    def _reported(self, report: ExchangeReport) -> None:
        if report.progress:
            self.membership.swim.progress.merge(report.progress)
            self.refresh()
        self._metrics.exchange_ended(
            role=report.role,
            outcome=report.outcome,
            seconds=report.seconds,
            sent_bytes=report.bytes_sent,
            received_bytes=report.bytes_received,
            steps_during=report.steps_during,
        )
        if report.decline is not None:
            self._declined(report, report.decline)
        if report.outcome is Outcome.BROKEN:
            self._log.info("an exchange broke and is being settled", peer=report.peer, cause=report.cause)
        if report.moved:
            self._moved(report)
        self.gossip.note(report)
        self._judge()

    def _moved(self, report: ExchangeReport) -> None:
        self.exchanges[report.role] += 1
        self._step_of_last_exchange = self.training.progress()[0]
        if report.outcome is Outcome.COMPLETE:
            self.consensus_distance = report.distance
            self._metrics.consensus_measured(report.distance)
        if self.training.plane is not None:
            self.training.plane.header.exchanges = sum(self.exchanges.values())

    def _declined(self, report: ExchangeReport, decline: Decline) -> None:
        self._metrics.declined(report.role, decline.reason)
        loop_time = asyncio.get_running_loop().time()
        if decline.reason in HANDSHAKE_REASONS and self._once.due((report.peer.name, decline.reason), loop_time):
            who = "declined" if report.role is Role.RESPONDER else "was declined by"
            reason = DeclineReason(decline.reason).name.lower()
            self._log.warning(f"{who} {report.peer.name}", reason=reason, detail=decline.detail)

    def _settled(self, end: SettleEnd) -> None:
        self._metrics.settled(end)
        self.watch.notify()

    def _holding(self) -> Holding:
        has_model = self.training.has_model and not self.training.poison
        return Holding(self.phase, self.training.plane, has_model)

    def steps_since_exchange(self) -> int:
        return max(0, self.training.progress()[0] - self._step_of_last_exchange)

    def leave(self) -> None:
        """Tell the members that this node ends on purpose."""
        self.gossip.close()
        self.membership.post(Leave())


_FAULTS = {RefusalReason.RUN: PacketFault.RUN, RefusalReason.PROTOCOL: PacketFault.PROTOCOL}

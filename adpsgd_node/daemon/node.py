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
from adpsgd_node.core.exchange.outcome import SettleEnd
from adpsgd_node.core.membership.config import membership_preset
from adpsgd_node.core.membership.event import Advanced, Leave, PhaseChanged
from adpsgd_node.core.membership.member import Member, Phase
from adpsgd_node.core.membership.packet import RefusalReason
from adpsgd_node.core.membership.roster import Identity
from adpsgd_node.core.membership.swim import Swim
from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.core.topology import topology_named
from adpsgd_node.daemon.account import Account
from adpsgd_node.daemon.adopt import Adopter
from adpsgd_node.daemon.donor import Donor, Holding
from adpsgd_node.daemon.exchange_io import ExchangeEngine, Surroundings
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.finish import MEND, Finish, poisoned
from adpsgd_node.daemon.gossip import HOLDING, SETTLED_PHASES, Gossip
from adpsgd_node.daemon.membership_io import MembershipHooks, MembershipIo
from adpsgd_node.daemon.settings import NodeConfig, TopologyName
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.daemon.trainer_link import LinkHost, TrainerLink
from adpsgd_node.daemon.training import Training
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.errors import AdpsgdError, ConfigError, PoisonedError
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId
from adpsgd_node.net.transport import ConverseHandler, Method, StreamMethod, Transport, UnaryHandler
from adpsgd_node.plane import Plane
from adpsgd_node.plane.header import Command
from adpsgd_node.telemetry.log import EventLog
from adpsgd_node.telemetry.metrics import Metrics, PacketFault
from adpsgd_node.wire.limits import MAX_PROGRESS_ENTRIES
from adpsgd_node.wire.trainer import Attach, Attached, Go

__all__ = ["Node"]


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
        self.link: TrainerLink | None = None
        """The trainer's, from its start to its end."""
        self._metrics = metrics
        self._tasks = tasks
        self._log = EventLog("node")
        self.given_up = ""
        """Why this node gave its model up, until it holds one again; empty when all is well."""
        self._finishing: asyncio.Task[None] | None = None
        self._rng = random.Random(f"{config.seed}/{identity.name}")
        self.training = Training(config.target, config.exchange.chunk_bytes)
        self.account = Account(metrics, self.training)
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
        self.finish = Finish(swim, self.gossip, config.target, self.watch, lambda: self.training.poison)
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
        try:
            plane, resumed = self.training.attach(attach.tensors, attach.dataset_size)
        except ConfigError as error:
            self.fail(error)  # starting the script again would not mend it
            raise
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

    async def _prepare(self) -> Go | None:
        await self.watch.until(lambda: self.phase is not Phase.JOINING or self.fatal is not None)
        if self.fatal is not None:
            return None
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
            return None
        if donor is None and self.given_up:  # to begin anew in the middle of a run would pass for its result
            self.fail(PoisonedError(f"{self.given_up}, and no live peer has a model to go on from: {MEND}"))
            return None
        if donor is None:
            self._log.info("starts with its own initial parameters")
        else:
            self._log.info("adopted the parameters of a peer", donor=donor)
        self.training.has_model, self.given_up = True, ""
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
        link = self.link
        assert link is not None, "only an attached trainer can settle"
        if not self.training.finite():
            self._poison("its parameters are not finite")
        if self.training.poison:
            self._tasks.start("tell the trainer", link.failed(poisoned(self.training.poison)))
            return
        self._log.info("has stopped stepping; settling", step=self.training.progress()[0])
        self._enter(Phase.SETTLING)
        self._finishing = self._tasks.start("finish", self.finish.conclude(link))

    def _judge(self) -> None:
        """See whether this node's neighbors are close, while it does not step."""
        if self.phase in SETTLED_PHASES and self.finish.all_finished():
            self.gossip.act(Activity.STOPPED)  # nobody needs this node to agree with any more
        elif self.phase in SETTLED_PHASES:
            self._enter(self.finish.judge(self.phase))

    def _saved(self, path: str) -> None:
        self._log.info("wrote the model", path=path)
        self._enter(Phase.FINISHED)

    def _trainer_lost(self, link: TrainerLink) -> None:
        if self._finishing is not None:
            self._finishing.cancel()  # its answer was for this trainer alone
            self._finishing = None
        if link is self.link:
            self.link = None
        self._metrics.trainer_exited()
        if self.training.poison:
            self.given_up = self.training.poison
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
            timeout_s = self.config.trainer.poison_timeout_s
            self._log.error(
                "this node stops exchanging, the others go on without it; a restarted script adopts a peer's model",
                why=self.training.poison,
                poison_timeout_s=timeout_s,
            )
            self._enter(Phase.POISONED)
            self.engine.break_off()
            if timeout_s:
                self._tasks.start("poison timeout", self._end_unless_mended(timeout_s))

    async def _end_unless_mended(self, timeout_s: float) -> None:
        if not await self.watch.until(lambda: self.phase is not Phase.POISONED, timeout_s):
            self.fail(PoisonedError(f"{self.training.poison}, and has not been again for {timeout_s:g} s: {MEND}"))

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
            self.membership.swim.progress.hear(report.progress)
            self.refresh()
        self.account.note(report, asyncio.get_running_loop().time())
        self.gossip.note(report)
        self._judge()

    def _settled(self, end: SettleEnd) -> None:
        self._metrics.settled(end)
        self.watch.notify()

    def _holding(self) -> Holding:
        has_model = self.training.has_model and not self.training.poison
        return Holding(self.phase, self.training.plane, has_model)

    def leave(self) -> None:
        """Tell the members that this node ends on purpose."""
        self.gossip.close()
        self.membership.post(Leave())


_FAULTS = {RefusalReason.RUN: PacketFault.RUN, RefusalReason.PROTOCOL: PacketFault.PROTOCOL}

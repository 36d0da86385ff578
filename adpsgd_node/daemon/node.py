"""One node: its phases, and what leads from one to the next.

JOINING --joined--> IDLE --trainer attached--> INITIALIZING --adopted or founded--> TRAINING
TRAINING --trainer stops stepping--> SETTLING <--neighbors close or not--> AGREED --model written--> FINISHED
any that holds a model --not finite--> POISONED --finite again--> TRAINING
any --told to leave--> DRAINING
"""

from __future__ import annotations

import asyncio
import random

from adpsgd_node.core.algorithms.ad_psgd import Activity
from adpsgd_node.core.exchange.outcome import SettleEnd
from adpsgd_node.core.exchange.quarantine import Sentence
from adpsgd_node.core.membership.event import PhaseChanged
from adpsgd_node.core.membership.member import HOLDING, SETTLED_PHASES, Member, Phase
from adpsgd_node.core.membership.packet import RefusalReason
from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.core.topology import topology_named
from adpsgd_node.daemon.account import Account
from adpsgd_node.daemon.adopt import Adopter
from adpsgd_node.daemon.boot import BootFile
from adpsgd_node.daemon.checkpointing import Checkpointing
from adpsgd_node.daemon.donor import Donor, Holding
from adpsgd_node.daemon.enquiry import Enquiry
from adpsgd_node.daemon.exchange_io import ExchangeEngine, Surroundings
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.fetch import Fetcher
from adpsgd_node.daemon.finish import MEND, Finish
from adpsgd_node.daemon.gossip import Gossip
from adpsgd_node.daemon.membership_io import MembershipHooks, MembershipIo, membership_of
from adpsgd_node.daemon.push_pull import parts_of
from adpsgd_node.daemon.rendezvous import Rendezvous
from adpsgd_node.daemon.resolve import SeedResolver
from adpsgd_node.daemon.rounds import MAX_NEIGHBORS
from adpsgd_node.daemon.server import refuse_updates
from adpsgd_node.daemon.settings import AlgorithmName, NodeConfig, PairingName, TopologyName
from adpsgd_node.daemon.snapshot import Subject
from adpsgd_node.daemon.task import Tasks
from adpsgd_node.daemon.terms import terms_of
from adpsgd_node.daemon.trainer_host import TrainerHost
from adpsgd_node.daemon.trainer_link import LinkHost, TrainerLink
from adpsgd_node.daemon.training import Training
from adpsgd_node.daemon.tuning import Tuning
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.errors import AdpsgdError, NameInUseError, PoisonedError
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.net.transport import ConverseHandler, Method, StreamMethod, Transport, UnaryHandler
from adpsgd_node.plane.header import Command, TrainerState
from adpsgd_node.seed import parse_seed
from adpsgd_node.telemetry.log import EventLog
from adpsgd_node.telemetry.metrics import Metrics, PacketFault
from adpsgd_node.wire.limits import MAX_PROGRESS_ENTRIES

__all__ = ["Node"]

REGROUP_AFTER_S = 0.01  # after a quarantine its end is looked for: timers may be a clock tick early


class Node:
    """Everything one node is, but its process: sockets are bound and signals handled by the app."""

    def __init__(
        self,
        config: NodeConfig,
        boots: BootFile,
        address: Address,
        transport: Transport,
        metrics: Metrics,
        tasks: Tasks,
    ) -> None:
        self.config = config
        self.identity = identity = NodeId(config.name, boots.next())
        self.run_id = RunId(config.run)
        self.phase = Phase.JOINING
        self.watch = Watch()
        self.fatal: AdpsgdError | None = None
        self.link: TrainerLink | None = None
        """The trainer's, from its start to its end."""
        self.metrics = metrics
        self.tasks = tasks
        self._log = EventLog("node")
        self.given_up = ""
        """Why this node gave its model up, until it holds one again; empty when all is well."""
        self._rng = random.Random(f"{config.seed}/{identity.name}")
        self.training = Training(config.target, config.exchange.chunk_bytes)
        self.account = Account(metrics, self.training)
        self.checkpointing = Checkpointing(config.checkpoint, config.folder, self._subject(), metrics)
        self._trainer_host = TrainerHost(self)
        self._address = address
        self._transport = transport
        self._boots = boots
        self._assemble()

    def _assemble(self) -> None:
        """Make what carries this node's identity; a second time when its boot number has to grow before it joins."""
        config, identity, address = self.config, self.identity, self._address
        metrics, transport, tasks = self.metrics, self._transport, self.tasks
        resolver = SeedResolver([parse_seed(text) for text in config.network.seeds], self._rng)
        swim = membership_of(config.network, identity, self.run_id, address, resolver, self._rng)
        hooks = MembershipHooks(
            changed=self._member_changed,
            joined=self._joined,
            progressed=self.refresh,
            rejected=lambda reason: metrics.packet_rejected(_FAULTS.get(reason, PacketFault.IDENTITY)),
            fatal=self.fail,
            outnumbered=self._outnumbered,
        )
        self.membership = MembershipIo(swim, transport, tasks, hooks, config.network.join_timeout_s, resolver)
        around = Surroundings(
            address_of=self.membership.address_of,
            progress=self._news,
            report=self._reported,
            poisoned=lambda chunk: self.poison(f"chunk {chunk} of its parameters is not finite"),
            settled=self._settled,
            kept=lambda role, _, chunks: metrics.chunks_averaged(role, chunks),
            sentenced=self._sentenced,
            round=lambda: self.gossip.round,
            admission=lambda peer, round_: self.gossip.admission(peer, round_),
            share=lambda peer: self.gossip.share(peer),
        )
        self.engine = ExchangeEngine(identity, self.run_id, transport, config.exchange, around, tasks)
        in_rounds = config.algorithm is AlgorithmName.D_PSGD
        if in_rounds:
            self.engine.patient, self.engine.max_inbound = True, MAX_NEIGHBORS
        if config.exchange.pairing is PairingName.BIPARTITE:
            self.engine.max_inbound = 1  # no two averagings of one node may overlap
        edges = ",".join(f"{one}:{other}" for one, other in config.exchange.edges) or None
        topology = topology_named(config.exchange.topology.name.lower(), edges)
        if config.exchange.topology is TopologyName.CUSTOM:
            topology.neighbors((identity.name,), identity.name)  # this node must be in the list
        self.gossip = Gossip(
            identity,
            config.exchange,
            topology,
            config.target.tolerance,
            self.engine,
            tasks,
            swim.live,
            self._rng,
            self.mixed if in_rounds else None,
        )
        self._tuning = Tuning(config.beyond, identity, self.gossip, swim)
        self.finish = Finish(
            swim, self.gossip, config.target, self.watch, lambda: self.training.poison, lambda: self.leaving
        )
        self._donor = Donor(identity, self.run_id, terms_of(config), self._holding, config.joining, metrics)
        self.adopter = Adopter(
            identity=identity,
            outbound_only=config.network.outbound_only,
            peers=self.membership.peers,
            samples_elsewhere=lambda: swim.progress.totals().samples - swim.progress.of(identity).samples,
            greet=self.membership.greet,
            enquiry=Enquiry(identity, self.run_id, terms_of(config), transport, self._rng, self._donor.askers),
            fetcher=Fetcher(self.run_id, transport, config.joining, metrics, self._rng),
            restorer=self.checkpointing.restorer,
            cold_start_timeout_s=config.checkpoint.cold_start_timeout_s,
            rng=self._rng,
        )
        self.server, self.push_pull = parts_of(self, transport, self._rng)
        self.rendezvous = Rendezvous(identity, self.run_id, config.world_size, transport, swim.live)

    def unary(self) -> dict[Method, UnaryHandler]:
        """Return what answers peers' calls."""
        return {
            Method.DELIVER: self.membership.deliver,
            Method.JOIN: self.membership.join,
            Method.SETTLE: self.engine.settle,
            Method.OFFER: self._donor.offer,
            Method.WORLD: self.rendezvous.answer,
        }

    def streams(self) -> dict[StreamMethod, ConverseHandler]:
        """Return what serves peers' streams."""
        update = refuse_updates if self.server is None else self.server.serve
        return {
            StreamMethod.CONVERSE: self.engine.converse,
            StreamMethod.FETCH: self._donor.fetch,
            StreamMethod.UPDATE: update,
        }

    def link_host(self) -> LinkHost:
        """Return what a trainer's control socket is served with."""
        return self._trainer_host.link_host()

    def fail(self, error: AdpsgdError) -> None:
        """Note why this node cannot go on; the app ends it."""
        if self.fatal is None:
            self.fatal = error
        self.watch.notify()

    @property
    def leaving(self) -> bool:
        """Whether this node is on its way out of the run."""
        return self.phase is Phase.DRAINING

    @property
    def trainer_state(self) -> TrainerState:
        """What the attached trainer says it is doing; NONE without one."""
        plane = self.training.plane
        attached = plane is not None and self.link is not None and self.link.pid != 0
        return plane.header.trainer_state if plane is not None and attached else TrainerState.NONE

    @property
    def averages(self) -> bool:
        """Whether nodes average their models while they train; else only to agree in the end."""
        return self.config.algorithm in (AlgorithmName.AD_PSGD, AlgorithmName.D_PSGD)

    def enter_draining(self) -> None:
        """Start nothing any more, decline what others start, and have them lay the topology without this node."""
        self.engine.stopping = True
        if self.server is not None:
            self.server.stopping = True
        self.enter(Phase.DRAINING)

    # Phases

    def enter(self, phase: Phase) -> None:
        """Go over to another phase, and let everyone know."""
        if phase is self.phase or self.leaving:  # from DRAINING nothing leads on but the end
            return
        self._log.debug("phase", before=self.phase.name, now=phase.name)
        self.phase = phase
        alone = phase is Phase.TRAINING and not self.averages
        self.engine.ready = phase in HOLDING and not alone
        self.engine.poisoned = phase is Phase.POISONED
        self.membership.post(PhaseChanged(phase))
        self.gossip.members_changed()
        if phase in SETTLED_PHASES:
            self.gossip.act(Activity.SETTLING)
        elif phase is Phase.TRAINING and not alone:
            attached = self.link is not None and self.link.pid
            self.gossip.act(Activity.STEPPING if attached else Activity.IDLE)
        else:
            self.gossip.act(Activity.STOPPED)
        if self.push_pull is not None and phase is not Phase.TRAINING:
            self.push_pull.stop()
            self.mixed(self.training.behind)
        self._judge()
        self.watch.notify()

    def _joined(self) -> None:
        if self.phase is Phase.JOINING:
            self.enter(Phase.IDLE)

    def refresh(self) -> None:
        """Show the trainer how far the run is, and stop it when the target is reached."""
        totals = self.membership.swim.progress.totals()
        self.training.publish(totals.steps, totals.samples)
        self._tuning.show(self.training.plane, asyncio.get_running_loop().time())
        target = self.training.target_samples
        if target and totals.samples >= target:
            self.training.command(Command.STOP)

    def stepped(self, steps: int, behind: int) -> None:
        """Do what the algorithm does after some steps. behind: the last one, if the trainer waits; 0: it does not."""
        if self.push_pull is None:
            self.gossip.stepped(steps, behind)
        elif behind and self.phase is Phase.TRAINING:
            self.push_pull.stepped(behind)
        else:
            self.mixed(behind)

    def mixed(self, step: int) -> None:
        """Let the trainer take in what was done after `step`, and go on; 0: it does not wait."""
        if not step:
            return
        self.training.mixed(step)
        if self.link is not None:
            self.link.wake()

    def _judge(self) -> None:
        """See whether this node's neighbors are close, while it does not step."""
        if self.phase in SETTLED_PHASES and self.finish.all_finished():
            self.gossip.act(Activity.STOPPED)  # nobody needs this node to agree with any more
        elif self.phase in SETTLED_PHASES:
            self.enter(self.finish.judge(self.phase))

    def poison(self, why: str) -> None:
        """Stop exchanging: what this node holds must not reach others."""
        self.training.poisoned(why)
        if self.leaving:
            self.engine.break_off()
        if self.phase in HOLDING:
            timeout_s = self.config.trainer.poison_timeout_s
            self._log.error(
                "this node stops exchanging, the others go on without it; a restarted script adopts a peer's model",
                why=self.training.poison,
                poison_timeout_s=timeout_s,
            )
            self.enter(Phase.POISONED)
            self.engine.break_off()
            if timeout_s:
                self.tasks.start("poison timeout", self._end_unless_mended(timeout_s))

    async def _end_unless_mended(self, timeout_s: float) -> None:
        if not await self.watch.until(lambda: self.phase is not Phase.POISONED, timeout_s):
            self.fail(PoisonedError(f"{self.training.poison}, and has not been again for {timeout_s:g} s: {MEND}"))

    # What others tell

    def _member_changed(self, member: Member, before: Member | None) -> None:
        if before is not None and before.id != member.id:
            self._peer_ended(before.id, for_good=True)
        if not member.live:
            # LEFT means that it settled what it had; DEAD may only be frozen.
            self._peer_ended(member.id, for_good=member.state.name == "LEFT")
        elif member.phase in HOLDING or member.outbound_only:  # who cannot be dialed, cannot be asked either
            self._joined()  # someone of the run came to us: none of our seeds needs to be up any more
        self.gossip.members_changed()
        self._judge()
        self.watch.notify()

    def _peer_ended(self, peer: NodeId, *, for_good: bool) -> None:
        (self.engine.peer_over if for_good else self.engine.peer_dead)(peer)
        if self.server is not None:
            self.server.break_off(peer, for_good=for_good)

    def _outnumbered(self, ghost: Member) -> None:
        asyncio.get_running_loop().call_soon(self._begin_anew, ghost)  # after what the old machine still has to say

    def _begin_anew(self, ghost: Member) -> None:
        """Take a boot number above that of an earlier life of this name, which is over: it would hide this one."""
        identity = self._boots.outbid(self.identity, ghost.id)
        if identity is None:
            return
        if self.phase not in (Phase.JOINING, Phase.IDLE) or self.training.has_model:
            self.fail(
                NameInUseError(
                    f"{ghost.id}, an earlier life of this node with a larger boot number, hides it from its peers: was "
                    f"the clock set back? Start it again; {identity.boot} is noted in {self._boots.path}"
                )
            )
            return
        self._log.warning("an earlier life has a larger boot number; begins anew above it", earlier=ghost, now=identity)
        self.identity = identity
        self.membership.close()
        self.gossip.close()
        self._assemble()
        if self.training.plane is not None:
            self.engine.use(self.training.plane)
        self.phase = Phase.JOINING
        self.membership.start()

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
        self.metrics.settled(end)
        self.watch.notify()

    def _sentenced(self, sentence: Sentence) -> None:
        loop = asyncio.get_running_loop()
        self.account.sentenced(sentence, loop.time(), member=self.membership.address_of(sentence.peer) is not None)
        self._regroup()
        loop.call_later(sentence.seconds + REGROUP_AFTER_S, self._regroup)

    def _regroup(self) -> None:
        """Take note that a neighbor is in quarantine, or is not any more."""
        self.gossip.members_changed()
        self._judge()
        self.watch.notify()

    def _holding(self) -> Holding:
        has_model = self.training.has_model and not (self.training.poison or self.engine.refused_by_peers())
        return Holding(self.phase, self.training.plane, has_model, self.checkpointing.standing())

    def _subject(self) -> Subject:
        return Subject(
            identity=lambda: self.identity,
            run_id=self.run_id,
            training=self.training,
            spoilt=lambda: self.training.poison or self.engine.refused_by_peers(),
            progress=lambda: self.membership.swim.progress,
            peers=lambda: self.membership.peers(),
            attached=lambda: self.trainer_state is TrainerState.STEPPING,  # one that does not comes to no boundary
            watch=self.watch,
        )

    async def leave(self, grace_s: float, limit_s: float) -> None:
        """Tell the members that this node ends on purpose."""
        self.gossip.close()
        if self.push_pull is not None:
            self.push_pull.close()
        await self.membership.part(grace_s, limit_s)


_FAULTS = {RefusalReason.RUN: PacketFault.RUN, RefusalReason.PROTOCOL: PacketFault.PROTOCOL}

"""Serve a node's trainer: hand it the plane, bring the run's parameters into it, follow its steps, see it off."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING

from adpsgd_node.address import split_address
from adpsgd_node.core.algorithms.ad_psgd import Activity
from adpsgd_node.core.membership.event import Advanced
from adpsgd_node.core.membership.member import Phase
from adpsgd_node.daemon.adopt import Origin, begin
from adpsgd_node.daemon.finish import MEND, poisoned
from adpsgd_node.daemon.push_pull import PushPull
from adpsgd_node.daemon.rendezvous import trainer_address
from adpsgd_node.daemon.trainer_link import LinkHost, TrainerLink
from adpsgd_node.errors import AdpsgdError, ConfigError, JoinError, PoisonedError, TrainerError
from adpsgd_node.plane import Plane
from adpsgd_node.plane.header import Command, TrainerState
from adpsgd_node.setting import choice
from adpsgd_node.telemetry.log import EventLog
from adpsgd_node.wire.trainer import Attach, Attached, Go

if TYPE_CHECKING:
    from adpsgd_node.daemon.node import Node

__all__ = ["TrainerHost"]

SCRIPT_END_S = 30.0
"""How long a script that is told why it cannot go on may take to end: it may have something to save."""


class TrainerHost:
    """What a node does at each stage of its trainer's life; one trainer after another."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._finishing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._parted: AdpsgdError | None = None
        self._log = EventLog("node")

    def link_host(self) -> LinkHost:
        """Return what a trainer's control socket is served with."""
        return LinkHost(
            attach=self._attach,
            prepare=self._prepare,
            stepped=self._stepped,
            settle=self._settle,
            saved=self._saved,
            lost=self._lost,
        )

    def _attach(self, attach: Attach) -> tuple[Plane, Attached]:
        node = self._node
        if node.training.poison:  # found after the script that did it had ended
            self._give_model_up()
        try:
            plane, resumed = node.training.attach(attach.tensors, attach.dataset_size)
        except ConfigError as error:
            node.fail(error)  # starting the script again would not mend it
            raise
        if not resumed:
            node.engine.use(plane)
        plane.header.command = Command.RUN
        node.checkpointing.restorer.meet(plane.layout.schema)
        node.refresh()
        handicap = node.config.handicap
        slow_factor, emulate_step_s = handicap.slow_factor(node.config.name), handicap.emulate_step_s
        if slow_factor > 1 or emulate_step_s:
            self._log.warning("computing is slowed down on purpose", factor=slow_factor, least_s=emulate_step_s)
        return plane, Attached(
            daemon_pid=os.getpid(),
            node=node.identity.name,
            run_id=node.run_id,
            schema=plane.layout.schema,
            chunk_bytes=plane.layout.chunk_bytes,
            resumed=resumed,
            output=str(node.config.folder.absolute()),
            state_folder=str(node.checkpointing.trainer_folder.absolute()),
            algorithm=choice(node.config.algorithm),
            slow_factor=slow_factor,
            emulate_step_s=emulate_step_s,
            host=split_address(node.membership.swim.self_member.address)[0],
        )

    async def _prepare(self) -> Go | None:
        node = self._node
        await node.watch.until(lambda: node.phase is not Phase.JOINING or node.fatal is not None)
        if node.fatal is not None or node.leaving:
            return None
        plane = node.training.plane
        assert plane is not None
        if node.training.has_model and node.rendezvous.size:
            node.fail(TrainerError("a script that comes back has no place in an allreduce: start all nodes again"))
            return None
        if node.training.has_model and not await node.training.finite():
            node.poison("its parameters are not finite")  # the script before ended without a word of it
        if node.training.poison:
            self._tell_poison()
            return None
        if node.training.has_model:
            self._log.info("the trainer goes on with the live plane", step=plane.header.step)
            restore = await self._trainer_part(plane)
            if node.push_pull is not None and not await self._meet_servers(node.push_pull, plane):
                return None
            self._resume()
            return Go(restore=restore)
        node.enter(Phase.INITIALIZING)
        try:
            origin = await node.adopter.adopt_or_found(plane)
        except AdpsgdError as error:
            node.fail(error)
            return None
        if origin == Origin() and node.given_up:  # to begin anew in the middle of a run would pass for its result
            node.fail(PoisonedError(f"{node.given_up}, and no live peer has a model to go on from: {MEND}"))
            return None
        begin(origin, node.membership.swim.progress, node.checkpointing.restorer.newest(None))
        node.training.has_model, node.given_up = True, ""
        node.enter(Phase.TRAINING)
        node.refresh()
        donor = origin.donor.name if origin.donor else ""
        go = Go(adopted=origin != Origin(), donor=donor, restore=await self._trainer_part(plane))
        if node.push_pull is not None and not await self._meet_servers(node.push_pull, plane):
            return None
        return await self._join_world(go, plane) if node.rendezvous.size else go

    async def _meet_servers(self, push_pull: PushPull, plane: Plane) -> bool:
        """Wait until there is somebody to push to; False when this node cannot go on."""
        node, link = self._node, self._node.link
        assert link is not None, "only an attached trainer is prepared"
        if not await push_pull.assembled(node.config.network.join_timeout_s or math.inf):
            names = ", ".join(node.config.servers)
            node.fail(
                JoinError(f"not all of the servers {names} are in the run: start them, or name others (--servers)")
            )
            return False
        push_pull.begin(plane)
        self._stop_watching()
        vain = push_pull.vain(plane)
        self._watching = node.tasks.start("watch the servers", self._watch_others(link, plane, vain))
        return True

    async def _join_world(self, go: Go, plane: Plane) -> Go | None:
        """Wait until all nodes of the world are there, and have the trainer meet theirs."""
        node, link = self._node, self._node.link
        assert link is not None, "only an attached trainer is prepared"
        try:
            place = await node.rendezvous.meet(trainer_address(node.membership.swim.self_member.address, link.port))
        except AdpsgdError as error:
            node.fail(error)
            return None
        vain = node.rendezvous.vain(plane.header)
        self._watching = node.tasks.start("watch the world", self._watch_others(link, plane, vain))
        # The nodes' checkpoints are of different steps, and their optimizers must not differ: all begin afresh.
        size = len(place.world.members)
        return replace(go, restore="", world_size=size, rank=place.rank, rendezvous=place.rendezvous)

    async def _watch_others(self, link: TrainerLink, plane: Plane, vain: Coroutine[None, None, AdpsgdError]) -> None:
        """Have the script end with the reason, and then this node, once one is lost that it cannot do without."""
        node = self._node
        self._parted = await vain
        if plane.header.trainer_state is not TrainerState.NONE:  # else it is not listening any more
            await link.failed(self._parted)
            await node.watch.until(lambda: node.link is not link, SCRIPT_END_S)
        node.fail(self._parted)

    async def _trainer_part(self, plane: Plane) -> str:
        path = await self._node.checkpointing.restorer.trainer_part(plane.layout.schema)
        return str(path.absolute()) if path else ""

    def _resume(self) -> None:
        node = self._node
        node.enter(Phase.TRAINING)
        if node.averages:
            node.gossip.act(Activity.STEPPING)
        if step := node.training.behind:  # its round was begun for an earlier life of the script
            node.stepped(0, step)
        node.refresh()

    def _stepped(self) -> None:
        node = self._node
        loop_time = asyncio.get_running_loop().time()
        news = node.training.look(loop_time)
        for seconds in news.step_seconds:
            node.metrics.stepped(seconds)
        if node.training.poison:
            node.poison(node.training.poison)
            if node.training.recovered(loop_time):
                self._log.info("loss and parameters are finite again; exchanging goes on")
                node.enter(Phase.TRAINING)
        node.membership.post(Advanced(*node.training.progress()))
        node.refresh()
        if node.trainer_state is TrainerState.NONE and node.phase is Phase.TRAINING and node.averages:
            node.gossip.act(Activity.IDLE)  # the script has let go of its node and lives on: nobody waits for its steps
        if news.steps:
            node.stepped(0 if node.training.poison else news.steps, node.training.behind)
        node.watch.notify()  # a checkpoint may wait for the trainer's part

    def _settle(self) -> None:
        node = self._node
        self._stepped()
        link = node.link
        assert link is not None, "only an attached trainer can settle"
        self._finishing = node.tasks.start("finish", self._finish(link))

    async def _finish(self, link: TrainerLink) -> None:
        node = self._node
        if not await node.training.finite():
            node.poison("its parameters are not finite")
        if node.training.poison:
            self._tell_poison()
            return
        self._stop_watching()
        self._log.info("has stopped stepping; settling", step=node.training.progress()[0])
        node.enter(Phase.SETTLING)
        await node.finish.conclude(link)

    def _tell_poison(self) -> None:
        """Have the script end: the next one adopts a peer's model."""
        node = self._node
        if node.link is not None:
            node.tasks.start("tell the trainer", node.link.failed(poisoned(node.training.poison)))

    def _saved(self, path: str) -> None:
        self._log.info("wrote the model", path=path)
        self._node.enter(Phase.FINISHED)
        self._node.watch.notify()  # one that is leaving waits for this

    def _give_model_up(self) -> None:
        """Drop what must not reach others: the next script adopts a peer's model."""
        node = self._node
        node.given_up = node.training.poison
        node.training.discard()
        node.enter(Phase.IDLE)

    def _lost(self, link: TrainerLink) -> None:
        node = self._node
        if node.link is not None and node.link is not link and node.link.pid:
            return  # its successor is there already: this one's last read from the disk took longer than its life
        if self._finishing is not None:
            self._finishing.cancel()  # its answer was for this trainer alone
            self._finishing = None
        if link is node.link:
            node.link = None
        node.metrics.trainer_exited()
        if self._parted is not None:
            node.fail(self._parted)  # now: what the script exits with is not the reason
        self._stop_watching()
        if node.training.poison:
            self._give_model_up()
        elif node.phase is Phase.TRAINING and node.averages:
            node.gossip.act(Activity.IDLE)
        elif node.phase is Phase.INITIALIZING:
            node.enter(Phase.IDLE)
        node.watch.notify()

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

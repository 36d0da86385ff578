"""Leave in good order: stop stepping, settle, exchange once more, write a checkpoint; all of it within a time.

    TRAINER -> SETTLE -> EXCHANGE -> CHECKPOINT      then the app says goodbye and closes the servers

Each stage may last until its mark, so what an earlier one leaves over a later one may use. A stage that runs out of
time is cut off and said to be open; those after it are still tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Awaitable, Callable

from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.membership.member import Member, Phase
from adpsgd_node.daemon.node import Node
from adpsgd_node.daemon.stop import Stop
from adpsgd_node.errors import CheckpointError
from adpsgd_node.ids import NodeId
from adpsgd_node.plane import Fold, TrainerState
from adpsgd_node.telemetry.log import EventLog

__all__ = ["Drain", "Stage"]

STATE_SHARE = 0.4
"""Part of the trainer's time in which it may write its optimizer's state, at its next step, for the checkpoint."""
BREAK_OFF_SHARE = 0.6
"""Part of the settling's time in which running exchanges may end by themselves; then they are broken and settled."""
CUT_OFF_S = 0.5
"""How long to wait for what was cut off: a thread that hangs in a write does not end for being told to."""
BUSY_PAUSE_S = 0.02
"""Before asking again when every peer is busy."""
ATTEMPT_SHARE = 0.5
"""Part of the time left for the last exchange that one attempt may take."""
MAX_FAILURES = 3
"""Peers with which the last exchange may fail before it is given up."""
LEARNING_PHASES = frozenset({Phase.TRAINING, Phase.SETTLING})
"""Phases in which a node has something that others lack, and may still take in: one that has agreed has neither."""


class Stage(enum.Enum):
    """What leaving is made of, in order; the value is the part of the time by which the stage is over."""

    TRAINER = 0.35
    SETTLE = 0.5
    EXCHANGE = 0.7
    CHECKPOINT = 0.95


class Drain:
    """The leaving of one node, once."""

    def __init__(self, node: Node, stop: Stop, end_trainer: Callable[[float], Awaitable[bool]]) -> None:
        """Take how to end the trainer within some seconds; that tells whether it has stopped."""
        self.open: list[str] = []
        """What could not be done, in words."""
        self.cut_off = False
        """Whether something was cut off in its middle: for want of time, or because a second signal came."""
        self._node = node
        self._stop = stop
        self._end_trainer = end_trainer
        self._before = node.phase
        self._neighbors = frozenset(node.gossip.neighbors)
        self._log = EventLog("drain")
        loop_time = asyncio.get_running_loop().time
        self._began = loop_time()
        self._total_s = stop.left_s()

    async def run(self) -> None:
        """Go through the stages; returns when they are over, or at once when hurried."""
        node = self._node
        self._log.info(
            "leaves in good order",
            cause=self._stop.cause,
            timeout_s=round(self._total_s, 3),
            running=node.engine.running,
            unsettled=node.engine.unsettled,
        )
        node.enter_draining()
        stages = asyncio.create_task(self._stages(), name="drain")
        hurried = asyncio.create_task(node.watch.until(lambda: self._stop.hurried), name="hurry")
        await asyncio.wait({stages, hurried}, return_when=asyncio.FIRST_COMPLETED, timeout=self._total_s)
        for task in (stages, hurried):
            task.cancel()
        await asyncio.wait({stages, hurried}, timeout=CUT_OFF_S)
        if not stages.done():
            self.open.append("something does not end although it was cut off")
        elif not stages.cancelled():
            stages.result()  # surfaces what was not meant to happen
        self.cut_off |= self._stop.hurried or not stages.done()
        took_s = round(asyncio.get_running_loop().time() - self._began, 3)
        if self._stop.hurried:
            self._log.warning("told again to stop: leaves at once", took_s=took_s)
        elif self.open:
            self._log.warning("leaves with something left open", open="; ".join(self.open), took_s=took_s)
        else:
            self._log.info("is ready to leave", took_s=took_s)

    async def _stages(self) -> None:
        await self._stage(Stage.TRAINER, self._stop_trainer, "the trainer did not end")
        await self._stage(Stage.SETTLE, self._settle, "exchanges are not settled")
        if self._learnt():
            await self._stage(Stage.EXCHANGE, self._exchange, "no last exchange")
        if self._node.training.has_model and not self._node.training.poison:  # what peers refuse is not kept, and said
            await self._stage(Stage.CHECKPOINT, self._checkpoint, "no checkpoint")

    async def _stage(self, stage: Stage, work: Callable[[Stage], Awaitable[str]], failure: str) -> None:
        """Run one stage until its mark; note what it leaves open."""
        try:
            async with asyncio.timeout(self._left_s(stage)):
                why = await work(stage)
        except TimeoutError:
            why, self.cut_off = "out of time", True
        if why:
            self.open.append(f"{failure} ({why})")

    def _left_s(self, stage: Stage) -> float:
        return max(0.0, self._began + stage.value * self._total_s - asyncio.get_running_loop().time())

    async def _stop_trainer(self, stage: Stage) -> str:
        if self._node.trainer_state is TrainerState.STEPPING:
            await self._save_trainer_state(self._left_s(stage) * STATE_SHARE)
        if not await self._end_trainer(self._left_s(stage)):
            return "it may still step"
        plane = self._node.training.plane
        if plane is not None and self._node.link is None:
            Fold(plane).recover()  # ended in the middle of a fold, it leaves one block half folded
        return ""

    async def _save_trainer_state(self, timeout_s: float) -> None:
        """Have the trainer write what only it knows while it still steps; without it the checkpoint says so."""
        with contextlib.suppress(TimeoutError):  # a checkpoint that is being written goes first
            async with asyncio.timeout(timeout_s):
                await self._node.checkpointing.ask_trainer(timeout_s)

    async def _settle(self, stage: Stage) -> str:
        engine = self._node.engine
        if await engine.drain(self._left_s(stage) * BREAK_OFF_SHARE):
            return ""
        engine.break_off()
        return "" if await engine.drain(self._left_s(stage)) else f"{engine.unsettled} of them"

    def _learnt(self) -> bool:
        """Tell whether this node may hold something that the others lack."""
        training = self._node.training
        return self._before in LEARNING_PHASES and training.has_model and not training.poison

    async def _exchange(self, stage: Stage) -> str:
        """Average with one more member, so that what was learnt here stays in the run."""
        engine, unfit, failures = self._node.engine, set[NodeId](), 0
        while failures < MAX_FAILURES and not engine.initiating and (peers := self._peers(unfit)):
            for member in peers:
                match await self._attempt(member, self._left_s(stage) * ATTEMPT_SHARE):
                    case Outcome.COMPLETE:
                        return ""
                    case Outcome.DECLINED:
                        continue  # busy: the next one
                    case Outcome.REFUSED:
                        unfit.add(member.id)  # it leaves as well, or holds nothing that may be averaged
                    case _:
                        unfit.add(member.id)
                        failures += 1
            await asyncio.sleep(BUSY_PAUSE_S)  # a busy peer does not say when it is free again
        settled = await engine.drain(self._left_s(stage))
        return "" if settled and not failures else f"{failures} failed"  # none failed: nobody is left to take it

    async def _attempt(self, member: Member, timeout_s: float) -> Outcome:
        """Exchange with one member; one that hangs may be frozen, and others can take its place."""
        try:
            async with asyncio.timeout(timeout_s):
                report = await self._node.engine.initiate(member.id, member.address, CodecName.FP32)
        except TimeoutError:
            return Outcome.BROKEN
        if report.outcome is Outcome.COMPLETE:
            self._log.info("made a last exchange", peer=member.id, distance=report.distance)
        return report.outcome

    def _peers(self, unfit: set[NodeId]) -> list[Member]:
        """Return who may take in what this node holds, its neighbors first."""
        node = self._node
        fit = [
            member
            for member in node.membership.peers()
            if member.phase in LEARNING_PHASES
            and member.id not in unfit
            and not member.outbound_only
            and node.engine.may_exchange_with(member.id)
        ]
        return sorted(fit, key=lambda member: member.name not in self._neighbors)

    async def _checkpoint(self, stage: Stage) -> str:
        try:
            await self._node.checkpointing.save("drain", self._left_s(stage))
        except CheckpointError as error:
            return str(error)
        return ""

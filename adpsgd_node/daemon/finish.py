"""End a run together: wait until nobody steps, then until the models agree, then let the trainer write its own."""

from __future__ import annotations

import math
from collections.abc import Callable

from adpsgd_node.core.membership.member import HOLDING, Phase
from adpsgd_node.core.membership.swim import Swim
from adpsgd_node.daemon.gossip import Gossip
from adpsgd_node.daemon.settings import TargetConfig
from adpsgd_node.daemon.trainer_link import TrainerLink
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.errors import PoisonedError
from adpsgd_node.telemetry.log import EventLog
from adpsgd_node.wire.trainer import Agreed

__all__ = ["MEND", "Finish", "poisoned"]

MEND = "lower the learning rate or mend the data, and start this node again"
"""What to do about a node whose loss or parameters are not finite."""

AGREED_PHASES = frozenset({Phase.AGREED, Phase.FINISHED})


class Finish:
    """The end of one node's training. `poison` says why its model must not be written, or nothing."""

    def __init__(
        self,
        swim: Swim,
        gossip: Gossip,
        target: TargetConfig,
        watch: Watch,
        poison: Callable[[], str],
        leaving: Callable[[], bool],
    ) -> None:
        self._swim = swim
        self._gossip = gossip
        self._target = target
        self._watch = watch
        self._poison = poison
        self._leaving = leaving
        self._log = EventLog("finish")

    async def conclude(self, link: TrainerLink) -> None:
        """Wait until the run's models agree, and tell this trainer."""
        agreed = await self._all_stop() and await self._watch.until(
            lambda: self._in_vain() or self._all_agreed(), self._target.finish_timeout_s
        )
        if why := self._poison():
            await link.failed(poisoned(why))
            return
        bound = self._gossip.consensus_bound()
        if self._leaving():
            self._log.info("leaves before the models agree: the script writes this node's own")
            bound = math.inf if self._others() else 0.0
        elif agreed and math.isinf(bound):
            self._log.warning(
                "nobody exchanges with this node at the end, for what it sent or they did; writing its model as it is"
            )
        elif not agreed:
            self._log.warning(
                "the models do not agree within the tolerance yet; writing this node's as it is",
                waited_s=self._target.finish_timeout_s,
                consensus_distance=bound,
                tolerance=self._target.tolerance,
            )
        totals = self._swim.progress.totals()
        members = 1 if self._leaving() else len(self._gossip.holders())
        await link.send(
            Agreed(consensus_distance=bound, steps_total=totals.steps, samples_total=totals.samples, members=members)
        )

    def judge(self, phase: Phase) -> Phase:
        """Return SETTLING or AGREED for a node that does not step, by how close its neighbors are."""
        far, settled = self._gossip.judge(), self._gossip.all_settled()
        if phase is Phase.SETTLING and settled and not far:
            return Phase.AGREED
        if phase is Phase.AGREED and (far or not settled):
            return Phase.SETTLING
        return phase

    def all_finished(self) -> bool:
        """Tell whether every live member that held the model has written it."""
        return all(member.phase is Phase.FINISHED for member in self._gossip.holders())

    def _all_agreed(self) -> bool:
        return all(member.phase in AGREED_PHASES for member in self._gossip.holders())

    def _others(self) -> bool:
        """Tell whether anybody else holds the model."""
        own = self._swim.self_member.id
        return any(m.phase in HOLDING for m in self._swim.live() if m.id != own)

    def _in_vain(self) -> bool:
        """Tell whether there is nothing to wait for any more."""
        return bool(self._poison()) or self._leaving()

    async def _all_stop(self) -> bool:
        """Wait until nobody steps any more, for as long as the run makes progress; False when it hangs."""
        while True:
            before = self._swim.progress.totals()
            if await self._watch.until(
                lambda: self._in_vain() or self._gossip.all_settled(), self._target.finish_timeout_s
            ):
                return True
            if self._swim.progress.totals() == before:
                return False


def poisoned(why: str) -> PoisonedError:
    """Say that a node has nothing to finish with."""
    return PoisonedError(f"{why}: this node has no model to write; {MEND}")

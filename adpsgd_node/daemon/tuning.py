"""Tell the trainer what the options beyond the paper ask of its steps: `--acceleration`, `--rate-correction`."""

from __future__ import annotations

from adpsgd_node.core.membership.member import Phase
from adpsgd_node.core.membership.swim import Swim
from adpsgd_node.core.rate_correction import RateCorrection
from adpsgd_node.daemon.acceleration import MAX_ACCELERATED
from adpsgd_node.daemon.beyond import BeyondConfig
from adpsgd_node.daemon.gossip import Gossip
from adpsgd_node.ids import NodeId
from adpsgd_node.plane import Plane
from adpsgd_node.telemetry.log import EventLog

__all__ = ["Tuning"]

WORTH_SAYING = 1.25
"""Factor by which the scale has changed when it is logged again."""


class Tuning:
    """What is written to the header of one node's plane; without either option, nothing."""

    def __init__(self, config: BeyondConfig, own: NodeId, gossip: Gossip, swim: Swim) -> None:
        self._gossip = gossip
        self._swim = swim
        self._accelerated = config.acceleration
        most = config.rate_correction
        self._correction = RateCorrection(own, most) if most else None
        self._said_scale = 1.0
        self._said_too_large = False
        self._log = EventLog("tuning")

    def show(self, plane: Plane | None, now: float) -> None:
        """Bring the header up to date; cheap enough for every step."""
        if plane is None:
            return
        if self._accelerated:
            self._show_momentum(plane)
        if self._correction is not None:
            progress = self._swim.progress
            stepping = (member.id for member in self._swim.live() if member.phase is Phase.TRAINING)
            self._correction.observe(now, (progress.of(node) for node in stepping))
            plane.header.rate_scale = self._correction.scale
            self._say(self._correction.scale)

    def _show_momentum(self, plane: Plane) -> None:
        momentum, header = self._gossip.momentum(), plane.header
        header.exchanges_per_unit = momentum.exchanges_per_unit
        header.mixing_rate = momentum.mixing_rate
        header.momentum_share = momentum.momentum_share
        too_large = self._gossip.size > MAX_ACCELERATED
        if too_large and not self._said_too_large:
            self._log.warning(
                "no momentum, as there are too many members", members=self._gossip.size, most=MAX_ACCELERATED
            )
        self._said_too_large = too_large

    def _say(self, scale: float) -> None:
        if not 1 / WORTH_SAYING < scale / self._said_scale < WORTH_SAYING:
            self._said_scale = scale
            self._log.info("this node's learning rates are scaled, as it steps at another rate", scale=f"{scale:.3g}")

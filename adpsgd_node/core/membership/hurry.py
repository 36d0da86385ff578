"""Pass on at once that a member is suspect, dead, gone or back: such news cannot wait for the next probe.

News that rides on probes takes seconds to reach a thousand members. When each that hears it sends it to two others at
once, it takes as many hops as the members have binary digits.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import Effect, MemberChanged
from adpsgd_node.core.membership.member import MemberState
from adpsgd_node.core.membership.roster import Roster

__all__ = ["Hurry"]

TOLD_AT_ONCE = 2
"""Members that are sent such news."""

BURSTS_PER_PROBE = 4
"""Times in one probe interval that this may happen: where half the run is cut off, the rest rides on probes."""


class Hurry:
    """Sends gossip to a few members when a known one changes state."""

    def __init__(self, roster: Roster, config: MembershipConfig, rng: random.Random) -> None:
        self._roster = roster
        self._config = config
        self._rng = rng
        self._not_before = 0.0

    def spread(self, effects: Iterable[Effect], now: float) -> list[Effect]:
        """Return the packets that pass on what is in `effects`, if it is urgent and nothing was so a moment ago."""
        if now < self._not_before or not any(map(_urgent, effects)):
            return []
        self._not_before = now + self._config.probe_interval_s / BURSTS_PER_PROBE
        told = self._roster.table.pick(
            TOLD_AT_ONCE, self._rng, lambda member: member.state is MemberState.ALIVE and not member.outbound_only
        )
        return [self._roster.compose(member.id, member.address, None) for member in told]


def _urgent(effect: Effect) -> bool:
    if not isinstance(effect, MemberChanged) or effect.before is None:
        return False
    return effect.before.id == effect.member.id and effect.before.state is not effect.member.state

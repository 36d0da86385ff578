"""Compare all that is known with a random member now and then, so that views agree even where gossip lost news."""

from __future__ import annotations

import math
import random

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import AskToJoin, Effect
from adpsgd_node.core.membership.member import MemberState
from adpsgd_node.core.membership.roster import Roster
from adpsgd_node.core.membership.schedule import Schedule, SyncDue
from adpsgd_node.ids import Address

__all__ = ["Syncing", "sync_interval_s"]

OUTBOUND_ONLY_FACTOR = 3
"""How many times as often an outbound-only node compares: of gossip it hears only what answers its own calls."""

SMALL_RUN = 32
"""Members up to which the interval is the configured one."""

MAX_TRIES = 3
"""Members asked, one after another, when none answers."""


def sync_interval_s(config: MembershipConfig, members: int) -> float:
    """Return the seconds between two comparisons that one node starts, in a run of `members` live nodes.

    The cost of one grows with the members, and so does the number of nodes that start one: beyond 32 members, each
    doubling adds one interval (as in memberlist's push-pull).
    """
    if members <= SMALL_RUN:
        return config.sync_interval_s
    return config.sync_interval_s * (math.ceil(math.log2(members / SMALL_RUN)) + 1)


class Syncing:
    """Asks one live member at a time, as a joining node asks a seed; both take in what the other knows."""

    def __init__(self, roster: Roster, schedule: Schedule, config: MembershipConfig, rng: random.Random) -> None:
        self._roster = roster
        self._schedule = schedule
        self._config = config
        self._rng = rng
        self._wait_s = config.sync_interval_s
        self._tries = 0
        self._asked: Address | None = None  # who has not answered yet

    def start(self, now: float) -> None:
        """Set the first comparison for early on: a node that just came has missed most."""
        self._schedule.add(now + self._rng.random() * self._config.sync_interval_s, SyncDue())

    def due(self, timer: SyncDue, now: float) -> list[Effect]:
        """Ask a member, and set the time of the next comparison; ask another if the last one did not answer."""
        if timer.again and self._asked is None:
            return []
        if not timer.again:
            self._tries = 0
            self._schedule.add(now + self._next_interval_s(), SyncDue())
        self._tries += 1
        if self._tries < MAX_TRIES:
            self._schedule.add(now + self._config.join_answer_timeout_s, SyncDue(again=True))
        able = self._roster.table.pick(
            1, self._rng, lambda member: member.state is MemberState.ALIVE and not member.outbound_only
        )
        self._asked = able[0].address if able else None
        return [AskToJoin(member.address) for member in able]

    def answered(self, address: Address) -> None:
        """Take note that `address` answered a question."""
        if address == self._asked:
            self._asked = None

    def _next_interval_s(self) -> float:
        # Soon again at first, whatever the number of members: a young node has missed most.
        interval_s = min(self._wait_s, sync_interval_s(self._config, self._roster.live_count))
        self._wait_s = 2 * interval_s
        if self._roster.own.outbound_only:
            interval_s /= OUTBOUND_ONLY_FACTOR
        return interval_s * self._rng.uniform(0.75, 1.25)

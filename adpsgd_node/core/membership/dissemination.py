"""Queue the news that rides on packets: what is sent least goes first, and each piece only so often."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

from adpsgd_node.core.membership.member import Member

__all__ = ["Dissemination", "retransmit_limit"]


def retransmit_limit(multiplier: int, members: int) -> int:
    """Return how often a node sends one piece of news: `multiplier * ceil(log10(members + 1))` (SWIM, section 4.1)."""
    return multiplier * math.ceil(math.log10(members + 1))


@dataclass(slots=True)
class _Update:
    member: Member
    order: int
    sent: int = 0

    def urgency(self) -> tuple[int, int]:
        """Fewest sent first; among equals the newest, so that a refutation does not wait behind a full table."""
        return (self.sent, -self.order)


class Dissemination:
    """A bounded queue of news, at most one piece per name: newer news of a member replaces older."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._updates: dict[str, _Update] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._updates)

    def add(self, member: Member) -> None:
        """Queue news of `member`, as not yet sent."""
        self._count += 1
        if member.name not in self._updates and len(self._updates) >= self._capacity:
            del self._updates[max(self._updates, key=lambda name: self._updates[name].urgency())]
        self._updates[member.name] = _Update(member, self._count)

    def take(self, limit: int, retransmits: int) -> tuple[Member, ...]:
        """Choose up to `limit` pieces for one packet and count them as sent; after `retransmits` times one is done."""
        chosen = heapq.nsmallest(limit, self._updates.values(), key=_Update.urgency)
        for update in chosen:
            update.sent += 1
            if update.sent >= retransmits:
                del self._updates[update.member.name]
        return tuple(update.member for update in chosen)

"""Queue the news that rides on packets: what is sent least goes first, and each piece only so often."""

from __future__ import annotations

import math

from adpsgd_node.core.membership.member import Member

__all__ = ["Dissemination", "retransmit_limit"]


def retransmit_limit(multiplier: int, members: int) -> int:
    """Return how often a node sends one piece of news: `multiplier * ceil(log10(members + 1))` (SWIM, section 4.1).

    Among fewer than ten as often as among up to 99: one `multiplier` passes a member by now and then.
    """
    return multiplier * max(2, math.ceil(math.log10(members + 1)))


class Dissemination:
    """A bounded queue of news, at most one piece per name: newer news of a member replaces older.

    Pieces stand in one bucket for each number of times sent, newest last. To choose some costs as much as there are
    buckets and pieces chosen, however many wait.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._buckets: list[dict[str, Member]] = [{}]
        self._sent: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, member: Member) -> None:
        """Queue news of `member`, as not yet sent."""
        name = member.name
        sent = self._sent.pop(name, None)
        if sent is not None:
            del self._buckets[sent][name]
        elif len(self._sent) >= self._capacity:
            self._drop_most_sent()
        self._buckets[0][name] = member
        self._sent[name] = 0

    def take(self, limit: int, retransmits: int) -> tuple[Member, ...]:
        """Choose up to `limit` pieces for one packet and count them as sent; after `retransmits` times one is done.

        Fewest sent first; among equals the newest, so that a refutation does not wait behind a full table.
        """
        if not self._sent:
            return ()
        chosen: list[Member] = []
        moved: list[tuple[int, list[tuple[str, Member]]]] = []
        for sent, bucket in enumerate(self._buckets):
            count = min(limit - len(chosen), len(bucket))
            if count:
                pieces = [bucket.popitem() for _ in range(count)]
                chosen += [member for _, member in pieces]
                moved.append((sent + 1, pieces))
            if len(chosen) >= limit:
                break
        for sent, pieces in moved:
            self._put_back(sent, pieces, retransmits)
        return tuple(chosen)

    def _put_back(self, sent: int, pieces: list[tuple[str, Member]], retransmits: int) -> None:
        if sent >= retransmits:
            for name, _ in pieces:
                del self._sent[name]
            return
        if sent == len(self._buckets):
            self._buckets.append({})
        pieces.reverse()  # they were taken newest first
        self._buckets[sent].update(pieces)
        for name, _ in pieces:
            self._sent[name] = sent

    def _drop_most_sent(self) -> None:
        fullest = next(bucket for bucket in reversed(self._buckets) if bucket)
        name = next(iter(fullest))
        del fullest[name]
        del self._sent[name]

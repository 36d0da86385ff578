"""Remember every other member of the run, the dead ones for a while."""

from __future__ import annotations

import bisect
import random
from collections import OrderedDict
from collections.abc import Callable

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.member import Member, MemberState
from adpsgd_node.ids import Address

__all__ = ["Table"]


class Table:
    """One record per name; at most `max_members` live ones and `max_tombstones` others."""

    def __init__(self, config: MembershipConfig) -> None:
        self._config = config
        self._live: dict[str, Member] = {}
        self._names: list[str] = []  # of the live ones, sorted
        self._tombstones: OrderedDict[str, tuple[Member, float]] = OrderedDict()  # the oldest is first
        self._sorted: tuple[Member, ...] | None = None
        self._outbound_only: dict[str, Member] = {}
        self.lineup = 0
        """Changes whenever a live member comes or goes: what was worked out from their names is then out of date."""

    def get(self, name: str) -> Member | None:
        """Return what is known of `name`, dead or alive."""
        member = self._live.get(name)
        if member is None and name in self._tombstones:
            member, _ = self._tombstones[name]
        return member

    @property
    def has_graves(self) -> bool:
        """Whether any member is remembered that is dead or has left."""
        return bool(self._tombstones)

    def grave(self, name: str) -> Member | None:
        """Return what is known of `name` if it is dead or has left."""
        if name not in self._tombstones:
            return None
        return self._tombstones[name][0]

    def live(self) -> tuple[Member, ...]:
        """Return the members that are ALIVE or SUSPECT, sorted by name."""
        if self._sorted is None:
            self._sorted = tuple([self._live[name] for name in self._names])
        return self._sorted

    def outbound_only(self) -> tuple[Member, ...]:
        """Return the live members that nobody can dial."""
        return tuple(self._outbound_only.values())

    def dialable_names(self) -> list[str]:
        """Return the names of the live members that can be dialed, sorted."""
        return [name for name in self._names if name not in self._outbound_only]

    @property
    def dialable_count(self) -> int:
        """Live members that can be dialed."""
        return len(self._live) - len(self._outbound_only)

    @property
    def live_count(self) -> int:
        """Members that are ALIVE or SUSPECT."""
        return len(self._live)

    def names(self) -> list[str]:
        """Return the names of the live members, sorted; a copy."""
        return self._names.copy()

    def lives_at(self, address: Address) -> bool:
        """Tell whether a live member has this address."""
        return any(member.address == address for member in self._live.values())

    def pick(self, count: int, rng: random.Random, fit: Callable[[Member], bool]) -> list[Member]:
        """Choose up to `count` live members at random that are `fit`, looking only at so many as it takes."""
        chosen: list[Member] = []
        tries = min(len(self._names), 4 * count + 8)
        for name in rng.sample(self._names, tries):
            if len(chosen) >= count:
                break
            member = self._live[name]
            if fit(member):
                chosen.append(member)
        return chosen

    def dead(self) -> tuple[Member, ...]:
        """Return the remembered members that are DEAD, oldest first; those who LEFT are not among them."""
        return tuple(member for member, _ in self._tombstones.values() if member.state is MemberState.DEAD)

    def members(self) -> tuple[Member, ...]:
        """Return every remembered member, sorted by name."""
        if not self._tombstones:
            return self.live()
        everyone = [*self._live.values(), *(member for member, _ in self._tombstones.values())]
        return tuple(sorted(everyone, key=lambda member: member.name))

    @property
    def full(self) -> bool:
        """Whether there is no room for another live member beside this node."""
        return len(self._live) + 1 >= self._config.max_members

    def put(self, member: Member, now: float) -> None:
        """Replace whatever is known under the member's name; a grave counts its time from `now`."""
        name = member.name
        self._sorted = None
        if member.live:
            self._tombstones.pop(name, None)
            if name not in self._live:
                bisect.insort(self._names, name)
                self.lineup += 1
            self._live[name] = member
            self._note_reach(member)
            return
        if self._live.pop(name, None) is not None:
            del self._names[bisect.bisect_left(self._names, name)]
            self._outbound_only.pop(name, None)
            self.lineup += 1
        self._tombstones.pop(name, None)
        self._tombstones[name] = (member, now)
        self.purge(now)

    def _note_reach(self, member: Member) -> None:
        """Keep the live members that nobody can dial in a list of their own; another life may be reached otherwise."""
        if member.outbound_only:
            self.lineup += member.name not in self._outbound_only
            self._outbound_only[member.name] = member
        elif self._outbound_only and self._outbound_only.pop(member.name, None) is not None:
            self.lineup += 1

    def purge(self, now: float) -> None:
        """Forget the graves that are too old or too many."""
        while self._tombstones:
            _, since = next(iter(self._tombstones.values()))
            too_old = now - since > self._config.tombstone_s
            if not too_old and len(self._tombstones) <= self._config.max_tombstones:
                return
            self._tombstones.popitem(last=False)

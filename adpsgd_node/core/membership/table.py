"""Remember every other member of the run, the dead ones for a while."""

from __future__ import annotations

from collections import OrderedDict

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.member import Member, MemberState

__all__ = ["Table"]


class Table:
    """One record per name; at most `max_members` live ones and `max_tombstones` others."""

    def __init__(self, config: MembershipConfig) -> None:
        self._config = config
        self._live: dict[str, Member] = {}
        self._tombstones: OrderedDict[str, tuple[Member, float]] = OrderedDict()  # the oldest is first
        self._sorted: tuple[Member, ...] | None = None

    def get(self, name: str) -> Member | None:
        """Return what is known of `name`, dead or alive."""
        if name in self._live:
            return self._live[name]
        member, _ = self._tombstones.get(name, (None, 0.0))
        return member

    def live(self) -> tuple[Member, ...]:
        """Return the members that are ALIVE or SUSPECT, sorted by name."""
        if self._sorted is None:
            self._sorted = tuple(self._live[name] for name in sorted(self._live))
        return self._sorted

    def dead(self) -> tuple[Member, ...]:
        """Return the remembered members that are DEAD, oldest first; those who LEFT are not among them."""
        return tuple(member for member, _ in self._tombstones.values() if member.state is MemberState.DEAD)

    def members(self) -> tuple[Member, ...]:
        """Return every remembered member, sorted by name."""
        everyone = [*self._live.values(), *(member for member, _ in self._tombstones.values())]
        return tuple(sorted(everyone, key=lambda member: member.name))

    @property
    def full(self) -> bool:
        """Whether there is no room for another live member beside this node."""
        return len(self._live) + 1 >= self._config.max_members

    def put(self, member: Member, now: float) -> None:
        """Replace whatever is known under the member's name; a grave counts its time from `now`."""
        self._sorted = None
        self._live.pop(member.name, None)
        self._tombstones.pop(member.name, None)
        if member.live:
            self._live[member.name] = member
        else:
            self._tombstones[member.name] = (member, now)
            self.purge(now)

    def purge(self, now: float) -> None:
        """Forget the graves that are too old or too many."""
        while self._tombstones:
            _, since = next(iter(self._tombstones.values()))
            too_old = now - since > self._config.tombstone_s
            if not too_old and len(self._tombstones) <= self._config.max_tombstones:
                return
            self._tombstones.popitem(last=False)

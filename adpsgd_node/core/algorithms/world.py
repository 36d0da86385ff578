"""Decide who takes part in an algorithm whose nodes are fixed from start to end, and with which rank.

Ranks go by the order of names. The first by name of those that are ready decides, once the others have called it: so
all of them live, have the parameters to begin with, and know each other. Whoever comes later has no place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adpsgd_node.core.membership.member import SETTLED_PHASES, Member, Phase
from adpsgd_node.ids import NodeId

__all__ = ["MAX_WORLD", "Assembly", "World", "absent", "ready"]

MAX_WORLD = 1024
"""Most nodes of one world: each of them is connected with each other."""


@dataclass(frozen=True, slots=True)
class World:
    """The nodes that take part, by rank."""

    members: tuple[NodeId, ...]

    def rank_of(self, node: NodeId) -> int | None:
        """Return a node's rank; None for one that has no place."""
        return self.members.index(node) if node in self.members else None

    def __str__(self) -> str:
        return ", ".join(node.name for node in self.members)


class Assembly:
    """The coming together of one world, as one of its nodes sees it."""

    def __init__(self, own: NodeId, size: int) -> None:
        self.world: World | None = None
        """Never changes once it stands."""
        self._own = own
        self._size = size
        self._called: set[NodeId] = set()

    def call(self, node: NodeId) -> None:
        """Take note that a node wants to take part; what is beyond `MAX_WORLD` is not remembered."""
        if len(self._called) < MAX_WORLD:
            self._called.add(node)

    def decide(self, here: Iterable[NodeId]) -> World | None:
        """Return the world if it stands; `here`: who is ready, this node among them.

        This node decides only if it is the first; the others hear of it and `enter`.
        """
        if self.world is None:
            first = sorted(here)[: self._size]
            if len(first) == self._size and first[0] == self._own and self._called.issuperset(first[1:]):
                self.world = World(tuple(first))
        return self.world

    def enter(self, world: World) -> bool:
        """Take over what another node decided; False when this node has no place in it."""
        if world.rank_of(self._own) is None or len(world.members) != self._size:
            return False
        self.world = world
        return True

    def whom_to_ask(self, here: Iterable[NodeId]) -> NodeId | None:
        """Return who decides, or, when that is this node, who knows if it is too late; None: nobody is there."""
        return min((node for node in here if node != self._own), default=None)


def ready(members: Iterable[Member]) -> list[NodeId]:
    """Return the live members that have the parameters to begin with and have not ended."""
    return [member.id for member in members if member.live and member.phase is Phase.TRAINING]


def absent(world: World, members: Iterable[Member]) -> tuple[list[NodeId], list[NodeId]]:
    """Return who of the world is dead, gone or replaced by a later life, and who lives but does not step any more."""
    live = {member.id: member for member in members if member.live}
    lost = [node for node in world.members if node not in live]
    stopped = [node for node in world.members if node in live and live[node].phase in SETTLED_PHASES]
    return lost, stopped

"""Keep what is to be told to members that nobody can dial, until each calls and takes it with the answer."""

from __future__ import annotations

from collections import OrderedDict, deque

from adpsgd_node.core.membership.effect import Effect, MemberChanged, SendPacket
from adpsgd_node.core.membership.member import Member
from adpsgd_node.core.membership.packet import Packet
from adpsgd_node.core.membership.table import Table
from adpsgd_node.ids import NodeId

__all__ = ["MAX_LETTERS", "MAX_MAILBOXES", "Mailboxes"]

MAX_LETTERS = 16
"""Most packets that wait for one member; a new one takes the place of the oldest."""

MAX_MAILBOXES = 1024
"""Most members for which packets wait; the one that was written to least recently makes room."""


class Mailboxes:
    """One bounded queue of packets a member; whoever comes back as another life finds an empty one."""

    def __init__(self) -> None:
        self._boxes: OrderedDict[NodeId, deque[Packet]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._boxes)

    def put(self, to: NodeId, packet: Packet) -> None:
        """Let `packet` wait for `to`."""
        box = self._boxes.setdefault(to, deque(maxlen=MAX_LETTERS))
        box.append(packet)
        self._boxes.move_to_end(to)
        if len(self._boxes) > MAX_MAILBOXES:
            self._boxes.popitem(last=False)

    def take(self, to: NodeId) -> tuple[Packet, ...]:
        """Hand out, once, all that waits for `to`, oldest first."""
        return tuple(self._boxes.pop(to, ()))

    def drop(self, to: NodeId) -> None:
        """Throw away what waits for one that is dead, or has left."""
        self._boxes.pop(to, None)

    def sort(self, effects: list[Effect], caller: Member | None, table: Table) -> list[Effect]:
        """Put what is meant for members that nobody can dial where they find it; return the other effects.

        `caller` is who sent the packet that they answer, if any: `table` may not know it yet.
        """
        if not table.outbound_only() and not (caller is not None and caller.outbound_only):
            return effects
        outward: list[Effect] = []
        for effect in effects:
            if isinstance(effect, SendPacket) and _waits(effect.to, caller, table):
                self.put(effect.to, effect.packet)
            else:
                outward.append(effect)
            if isinstance(effect, MemberChanged) and not effect.member.live:
                self.drop(effect.member.id)
        return outward


def _waits(to: NodeId, caller: Member | None, table: Table) -> bool:
    known = caller if caller is not None and caller.id == to else table.get(to.name)
    return known is not None and known.outbound_only

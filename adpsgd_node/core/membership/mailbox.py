"""Keep what is to be told to members that nobody can dial, until each calls and takes it with the answer."""

from __future__ import annotations

from collections import OrderedDict, deque

from adpsgd_node.core.membership.packet import Packet
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

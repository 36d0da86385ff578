"""Say what a node believes of a member, and which of two beliefs about it holds."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from adpsgd_node.ids import Address, NodeId

__all__ = ["HOLDING", "SETTLED_PHASES", "Member", "MemberState", "Phase", "supersedes"]


class MemberState(enum.IntEnum):
    """What a member is believed to be; the numbers are those of the published schema, and their order is precedence."""

    ALIVE = 1
    SUSPECT = 2
    DEAD = 3
    LEFT = 4


class Phase(enum.IntEnum):
    """What a node is doing; only the node itself changes it. The numbers are those of the published schema."""

    JOINING = 1
    IDLE = 2
    INITIALIZING = 3
    TRAINING = 4
    SETTLING = 5
    AGREED = 6
    FINISHED = 7
    POISONED = 8
    DRAINING = 9


HOLDING = frozenset({Phase.TRAINING, Phase.SETTLING, Phase.AGREED, Phase.FINISHED})
"""Phases in which a node holds the run's model and exchanges it: the topology is laid over these members."""

SETTLED_PHASES = frozenset({Phase.SETTLING, Phase.AGREED, Phase.FINISHED})
"""Phases in which a node does not step any more."""


@dataclass(frozen=True, slots=True)
class Member:
    """One node as membership sees it: the unit of gossip."""

    id: NodeId
    address: Address
    incarnation: int
    """Raised only by the member itself: to refute a suspicion and to announce a new phase."""
    state: MemberState
    phase: Phase
    outbound_only: bool = False
    """Nobody can dial it: it calls the others, and hears what waits for it in the answers."""
    suspected_by: str = ""
    """Of a suspect: the name of a node whose own probe found it silent; empty when nobody says so of its own."""

    @property
    def name(self) -> str:
        return self.id.name

    @property
    def live(self) -> bool:
        """Whether it still takes part: a suspect does, until its time is up."""
        return self.state in (MemberState.ALIVE, MemberState.SUSPECT)

    def __str__(self) -> str:
        by = f" by {self.suspected_by}" if self.suspected_by else ""
        return f"{self.id}@{self.address} {self.state.name.lower()}/{self.incarnation} {self.phase.name.lower()}{by}"


def supersedes(claim: Member, known: Member) -> bool:
    """Decide whether `claim` replaces `known` about the same name (SWIM, section 4.2, with boots put before all).

    A later life beats an earlier one; in one life the higher incarnation wins; within one incarnation
    ALIVE < SUSPECT < DEAD < LEFT. This is a total order, so all nodes end at the same belief whatever the order in
    which they hear of it, and a member called dead comes back by raising its incarnation.
    """
    if claim.id.boot != known.id.boot:
        return claim.id.boot > known.id.boot
    if claim.incarnation != known.incarnation:
        return claim.incarnation > known.incarnation
    return claim.state > known.state

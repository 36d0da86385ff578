"""Define what the membership machine asks its driver to do, and tells it."""

from __future__ import annotations

from dataclasses import dataclass

from adpsgd_node.core.membership.member import Member
from adpsgd_node.core.membership.packet import Packet, Refusal, RefusalReason
from adpsgd_node.ids import Address, NodeId

__all__ = [
    "AskToJoin",
    "Effect",
    "JoinRefused",
    "Joined",
    "MemberChanged",
    "NameConflict",
    "NameInUse",
    "Refuted",
    "Rejected",
    "ResolveSeeds",
    "SendPacket",
    "Waiting",
]


@dataclass(frozen=True, slots=True)
class SendPacket:
    """Deliver `packet`, once, waiting for nothing; a failure needs no report."""

    address: Address
    packet: Packet
    to: NodeId
    """Whom it is meant for."""

    def __str__(self) -> str:
        return f"send to {self.address}: {self.packet}"


@dataclass(frozen=True, slots=True)
class AskToJoin:
    """Call Join on `seed` with `Swim.join_request()`; report `JoinAnswered` or `JoinFailed`.

    A node that has joined asks members in the same way, to compare all that both know.
    """

    seed: Address

    def __str__(self) -> str:
        return f"ask {self.seed} to join"


@dataclass(frozen=True, slots=True)
class ResolveSeeds:
    """Look up the seeds that are given by names, if that is not under way; report `SeedsResolved`."""

    def __str__(self) -> str:
        return "resolve the seeds"


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """Another node is new, or believed to be something else than before; a new boot has `before.id != member.id`."""

    member: Member
    before: Member | None
    """None when the name was not known."""

    def __str__(self) -> str:
        return f"member {self.member} (before: {self.before or 'unknown'})"


@dataclass(frozen=True, slots=True)
class Joined:
    """This node belongs to the run. Happens once."""

    seed: Address | None
    """The seed that let it in; None when there is no other node to ask."""

    def __str__(self) -> str:
        return f"joined through {self.seed}" if self.seed else "joined alone"


@dataclass(frozen=True, slots=True)
class JoinRefused:
    """A seed does not let this node in, which has not joined yet. Asking goes on until the driver gives up."""

    refusal: Refusal
    seed: Address

    def __str__(self) -> str:
        return f"refused by {self.seed}, {self.refusal}"


@dataclass(frozen=True, slots=True)
class NameInUse:
    """A seed says that another node holds this node's name. Asking goes on: the holder may be found dead."""

    detail: str
    seed: Address
    holder: Member | None
    """Who holds the name, as the seed knows it."""

    def __str__(self) -> str:
        return f"name in use, says {self.seed}: {self.detail}"


@dataclass(frozen=True, slots=True)
class NameConflict:
    """Someone else goes by this node's name: call its address, find out whether it lives, and decide who yields.

    Repeated for as long as it is heard of, at most once in `reconnect_interval_s`. A claim at this node's OWN address
    with a larger boot is an earlier life of ours whose boot number was ahead: only a larger boot number mends that.
    """

    other: Member

    def __str__(self) -> str:
        return f"name conflict with {self.other}"


@dataclass(frozen=True, slots=True)
class Refuted:
    """Someone held this node suspect, dead or gone; it raised its incarnation to say otherwise."""

    claim: Member
    incarnation: int

    def __str__(self) -> str:
        return f"refuted {self.claim} with incarnation {self.incarnation}"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A packet of another run or protocol version was dropped, or a seed asked again refused. State is unchanged."""

    reason: RefusalReason
    source: Member
    detail: str

    def __str__(self) -> str:
        return f"rejected {self.source}, {self.reason.name.lower()}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """No seed lets this node in yet: a line for the log."""

    text: str

    def __str__(self) -> str:
        return f"waiting: {self.text}"


Effect = (
    SendPacket
    | AskToJoin
    | MemberChanged
    | Joined
    | JoinRefused
    | NameInUse
    | NameConflict
    | Refuted
    | Rejected
    | ResolveSeeds
    | Waiting
)

"""Define what happens to the membership machine."""

from __future__ import annotations

from dataclasses import dataclass

from adpsgd_node.core.membership.member import Phase
from adpsgd_node.core.membership.packet import JoinResponse, Packet
from adpsgd_node.ids import Address

__all__ = [
    "Advanced",
    "Event",
    "JoinAnswered",
    "JoinFailed",
    "Leave",
    "LoopLagged",
    "PacketReceived",
    "PhaseChanged",
    "SeedsResolved",
]


@dataclass(frozen=True, slots=True)
class PacketReceived:
    packet: Packet


@dataclass(frozen=True, slots=True)
class JoinAnswered:
    """The seed asked by `AskToJoin` has answered."""

    seed: Address
    response: JoinResponse


@dataclass(frozen=True, slots=True)
class JoinFailed:
    """The seed asked by `AskToJoin` could not be reached, or what it answered could not be read."""

    seed: Address
    reason: str


@dataclass(frozen=True, slots=True)
class SeedsResolved:
    """What `ResolveSeeds` asked for: where the seeds lead now."""

    addresses: tuple[Address, ...]
    """Of all seeds, at most `MAX_SEEDS`; those that are plain addresses among them."""
    nowhere: tuple[str, ...] = ()
    """The seeds that never led to an address yet, each with the reason."""


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """This node now does something else; everyone is told."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Advanced:
    """This node's progress so far."""

    steps: int
    """All steps of this life of this node, not those since the last event."""
    samples: int
    """All samples of this life of this node."""


@dataclass(frozen=True, slots=True)
class LoopLagged:
    """A timer of this process fired late: it hears acks late too, and must not take that for the others' silence."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Leave:
    """This node ends on purpose: say so, and do nothing more."""


Event = PacketReceived | JoinAnswered | JoinFailed | PhaseChanged | Advanced | LoopLagged | SeedsResolved | Leave

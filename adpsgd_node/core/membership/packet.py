"""Define what members say to each other: one-way packets, and the question and answer of a join."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from adpsgd_node.core.membership.member import Member
from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.ids import Address, NodeId, RunId

__all__ = ["Ack", "Body", "JoinRequest", "JoinResponse", "Packet", "Ping", "PingRequest", "Refusal", "RefusalReason"]


@dataclass(frozen=True, slots=True)
class Ping:
    sequence: int
    target: NodeId

    def __str__(self) -> str:
        return f"ping {self.sequence} for {self.target}"


@dataclass(frozen=True, slots=True)
class Ack:
    sequence: int

    def __str__(self) -> str:
        return f"ack {self.sequence}"


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Asks the receiver to ping `target` and to pass its ack back under `sequence`."""

    sequence: int
    target: NodeId
    target_address: Address

    def __str__(self) -> str:
        return f"ping-request {self.sequence} for {self.target}@{self.target_address}"


Body = Ping | Ack | PingRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One one-way message. Without a body it is gossip only."""

    protocol: int
    run_id: RunId
    source: Member
    updates: tuple[Member, ...] = ()
    progress: tuple[ProgressEntry, ...] = ()
    body: Body | None = None

    def __str__(self) -> str:
        parts = [f"{self.body or 'gossip'} from {self.source}"]
        if self.updates:
            parts.append("news: " + ", ".join(map(str, self.updates)))
        if self.progress:
            parts.append("progress: " + ", ".join(map(str, self.progress)))
        return "; ".join(parts)


class RefusalReason(enum.IntEnum):
    """Why a node is not let in; the numbers are those of the published schema."""

    RUN = 1
    PROTOCOL = 2
    NAME_IN_USE = 3
    FULL = 4
    SCHEMA = 5


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: RefusalReason
    detail: str
    """Names what was expected, what came, and how to mend it."""

    def __str__(self) -> str:
        return f"{self.reason.name.lower()}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    protocol: int
    run_id: RunId
    source: Member
    progress: tuple[ProgressEntry, ...] = ()
    members: tuple[Member, ...] = ()
    """All that the asking node knows, itself not included; empty until it has joined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinResponse:
    refusal: Refusal | None
    """None when the join is accepted."""
    source: Member
    members: tuple[Member, ...] = ()
    """All that the answering node knows, itself not included; on NAME_IN_USE only the holder of the name."""
    progress: tuple[ProgressEntry, ...] = ()

    def __str__(self) -> str:
        if self.refusal is not None:
            return f"refused, {self.refusal}"
        return f"accepted by {self.source}" + "".join(f", {member}" for member in self.members)

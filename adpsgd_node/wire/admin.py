"""Turn a node's status into bytes of the published schema and back: what the CLI asks over the unix socket."""

from __future__ import annotations

import math
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.errors import WireError
from adpsgd_node.ids import Address, RunId
from adpsgd_node.wire import check
from adpsgd_node.wire.v1 import admin_pb2, membership_pb2

__all__ = ["STATUS_REQUEST", "MemberStatus", "Status", "decode_status", "encode_status"]

STATUS_REQUEST = b""
"""A serialized StatusRequest: it has no fields."""

MAX_STATUS_BYTES = 8 << 20
MAX_MEMBERS = 10_000


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One member as the asked node knows it."""

    member: Member
    steps: int
    samples: int
    neighbor: bool
    quarantine: str = ""
    """Why the asked node exchanges nothing with it for now; empty: all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What one node says of itself and of its run."""

    self_member: Member
    run_id: RunId
    version: str
    insecure: bool
    algorithm: str
    topology: str
    codec: str
    uptime_s: float
    step: int
    """Of this node; `steps_total` and `samples_total` are those of the whole run."""
    samples: int
    samples_per_s: float
    loss: float
    """NaN: none logged yet."""
    accuracy: float
    """NaN: none logged yet."""
    exchanges_initiated: int
    exchanges_responded: int
    consensus_distance: float
    """Relative; NaN: no exchange yet."""
    steps_total: int
    samples_total: int
    samples_target: int
    """0: no target."""
    unsettled: int
    problem: str
    """Empty, or why this node does not take part fully."""
    members: tuple[MemberStatus, ...]
    """All known members, the asked node included."""
    http_address: str
    trainer_pid: int
    """0: no trainer attached."""
    trainer_restarts: int
    output: str
    checkpoint: str = ""
    """Folder of the newest checkpoint; empty: none."""
    checkpoint_age_s: float = math.nan
    """NaN: none."""


_PLAIN_FIELDS = tuple(name for name in Status.__slots__ if name not in ("self_member", "members"))


def encode_status(status: Status) -> bytes:
    """Serialize a status as `StatusResponse`."""
    message = admin_pb2.StatusResponse(**{name: getattr(status, name) for name in _PLAIN_FIELDS})
    _fill_member(message.self, status.self_member)
    for entry in status.members:
        added = message.members.add(
            steps=entry.steps, samples=entry.samples, neighbor=entry.neighbor, quarantine=entry.quarantine
        )
        _fill_member(added.member, entry.member)
    return message.SerializeToString()


def decode_status(data: bytes) -> Status:
    """Parse a `StatusResponse`. Raises `WireError` when it is none, or exceeds a limit."""
    if len(data) > MAX_STATUS_BYTES:
        raise WireError(f"a status of {len(data)} bytes came; at most {MAX_STATUS_BYTES} are read")
    message = admin_pb2.StatusResponse()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise WireError(f"bytes that are no StatusResponse came: {error}") from None
    if len(message.members) > MAX_MEMBERS:
        raise WireError(f"a status of {len(message.members)} members came; at most {MAX_MEMBERS} are read")
    members = tuple(
        MemberStatus(_member(entry.member), entry.steps, entry.samples, entry.neighbor, entry.quarantine)
        for entry in message.members
    )
    plain = {name: getattr(message, name) for name in _PLAIN_FIELDS}
    plain["run_id"] = check.run_id(message.run_id)
    return Status(self_member=_member(message.self), members=members, **plain)


def _fill_member(message: membership_pb2.Member, member: Member) -> None:
    message.MergeFrom(
        membership_pb2.Member(
            name=member.id.name,
            boot=member.id.boot,
            address=member.address,
            incarnation=member.incarnation,
            state=f"MEMBER_STATE_{member.state.name}",
            phase=f"PHASE_{member.phase.name}",
            outbound_only=member.outbound_only,
        )
    )


def _member(message: membership_pb2.Member) -> Member:
    return Member(
        id=check.node_id(message.name, message.boot, "member"),
        address=Address(check.short_text(message.address, "address")),
        incarnation=message.incarnation,
        state=check.chosen(MemberState, message.state, "state"),
        phase=check.chosen(Phase, message.phase, "phase"),
        outbound_only=message.outbound_only,
    )

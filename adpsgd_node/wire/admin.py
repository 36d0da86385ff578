"""Turn what the CLI asks over the unix socket, and what the daemon answers, into bytes of the published schema."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.errors import WireError
from adpsgd_node.ids import Address, RunId
from adpsgd_node.wire import check, limits
from adpsgd_node.wire.v1 import admin_pb2, membership_pb2

__all__ = [
    "MAX_TIMEOUT_S",
    "STATUS_REQUEST",
    "Draining",
    "MemberStatus",
    "Status",
    "decode_checkpoint_request",
    "decode_checkpointed",
    "decode_drain_request",
    "decode_draining",
    "decode_status",
    "encode_checkpoint_request",
    "encode_checkpointed",
    "encode_drain_request",
    "encode_draining",
    "encode_status",
]

STATUS_REQUEST = b""
"""A serialized StatusRequest: it has no fields."""

MAX_STATUS_BYTES = 8 << 20
MAX_MEMBERS = 10_000
MAX_CALL_BYTES = 16 << 10
"""Largest message of the other calls: a path, or a sentence on what went wrong."""
MAX_PATH_LENGTH = 4096
MAX_TIMEOUT_S = 7 * 24 * 3600.0
"""Longest time a call may give the daemon for what it asks."""


_Call = TypeVar("_Call", bound=Message)


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


@dataclass(frozen=True, slots=True)
class Draining:
    """A daemon's word that it is leaving."""

    pid: int
    """Its process, as it sees itself."""
    timeout_s: float
    """It has ended after that."""


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


def encode_drain_request(timeout_s: float) -> bytes:
    """Ask a daemon to leave; 0 seconds: as long as it is set to take."""
    return admin_pb2.DrainRequest(timeout_s=timeout_s).SerializeToString()


def decode_drain_request(data: bytes) -> float:
    """Parse a `DrainRequest`; returns its seconds, 0 for none given. Raises `WireError`."""
    return _seconds(_parsed(admin_pb2.DrainRequest(), data).timeout_s)


def encode_draining(draining: Draining) -> bytes:
    return admin_pb2.DrainResponse(pid=draining.pid, timeout_s=draining.timeout_s).SerializeToString()


def decode_draining(data: bytes) -> Draining:
    """Parse a `DrainResponse`. Raises `WireError`."""
    message = _parsed(admin_pb2.DrainResponse(), data)
    return Draining(message.pid, _seconds(message.timeout_s))


def encode_checkpoint_request(timeout_s: float) -> bytes:
    """Ask a daemon to write a checkpoint within some seconds; 0: as long as it usually gives itself."""
    return admin_pb2.CheckpointRequest(timeout_s=timeout_s).SerializeToString()


def decode_checkpoint_request(data: bytes) -> float:
    """Parse a `CheckpointRequest`; returns its seconds, 0 for none given. Raises `WireError`."""
    return _seconds(_parsed(admin_pb2.CheckpointRequest(), data).timeout_s)


def encode_checkpointed(path: str, problem: str = "") -> bytes:
    """Say where the checkpoint is, or why there is none."""
    cut = problem[: limits.MAX_DETAIL_LENGTH]
    return admin_pb2.CheckpointResponse(path=path, problem=cut).SerializeToString()


def decode_checkpointed(data: bytes) -> tuple[str, str]:
    """Parse a `CheckpointResponse`; returns path and problem, one of them empty. Raises `WireError`."""
    message = _parsed(admin_pb2.CheckpointResponse(), data)
    if bool(message.path) == bool(message.problem):
        raise WireError("an answer on a checkpoint must have either a path or a problem")
    check.at_most(len(message.path), MAX_PATH_LENGTH, "length of path")
    return message.path, check.short_text(message.problem, "problem")


def _parsed(message: _Call, data: bytes) -> _Call:
    """Fill `message` from bytes that came over the socket."""
    check.at_most(len(data), MAX_CALL_BYTES, f"bytes of {message.DESCRIPTOR.name}")
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise WireError(f"bytes that are no {message.DESCRIPTOR.name} came: {error}") from None
    return message


def _seconds(value: float) -> float:
    if not 0 <= value <= MAX_TIMEOUT_S:  # NaN is not, either
        raise WireError(f"timeout_s: {value} is not between 0 and {MAX_TIMEOUT_S:g} seconds")
    return value


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

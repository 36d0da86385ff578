"""Encode and decode membership: packets, and the question and answer of a join.

Everything decoded is checked against a named limit; what does not fit raises `WireError` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from google.protobuf.message import DecodeError, Message

from adpsgd_node.core.membership.config import (
    MAX_MEMBERS,
    MAX_PROGRESS_PER_PACKET,
    MAX_TOMBSTONES,
    MAX_UPDATES_PER_PACKET,
)
from adpsgd_node.core.membership.mailbox import MAX_LETTERS
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.membership.packet import (
    Ack,
    Body,
    JoinRequest,
    JoinResponse,
    Packet,
    Ping,
    PingRequest,
    Refusal,
    RefusalReason,
)
from adpsgd_node.core.progress import MAX_PROGRESS_ENTRIES, ProgressEntry
from adpsgd_node.errors import WireError
from adpsgd_node.ids import Address
from adpsgd_node.wire import check, limits
from adpsgd_node.wire.v1 import membership_pb2 as pb

__all__ = [
    "decode_deliver_response",
    "decode_join_request",
    "decode_join_response",
    "decode_packet",
    "encode_deliver_response",
    "encode_join_request",
    "encode_join_response",
    "encode_packet",
]

_MAX_PORT = 65535

MessageT = TypeVar("MessageT", bound=Message)


def encode_packet(packet: Packet) -> bytes:
    """Write a packet as bytes of the published schema."""
    return _packet_to_proto(packet).SerializeToString()


def _packet_to_proto(packet: Packet) -> pb.Packet:
    message = pb.Packet(
        protocol=packet.protocol,
        run_id=packet.run_id,
        source=_member_to_proto(packet.source),
        updates=[_member_to_proto(update) for update in packet.updates],
        progress=_progress_to_proto(packet.progress),
    )
    match packet.body:
        case Ping(sequence, target):
            message.ping.CopyFrom(pb.Ping(sequence=sequence, target=target.name, target_boot=target.boot))
        case Ack(sequence):
            message.ack.CopyFrom(pb.Ack(sequence=sequence))
        case PingRequest(sequence, target, address):
            request = pb.PingRequest(
                sequence=sequence, target=target.name, target_boot=target.boot, target_address=address
            )
            message.ping_request.CopyFrom(request)
        case None:
            pass
    return message


def decode_packet(data: bytes) -> Packet:
    """Read a packet. Raises `WireError`."""
    return _packet(_parse(pb.Packet(), data, limits.MAX_PACKET_BYTES))


def encode_deliver_response(packets: Sequence[Packet]) -> bytes:
    """Write the answer to a packet: what waits for a caller that nobody can dial; nothing for the others."""
    assert len(packets) <= MAX_LETTERS, f"{len(packets)} packets in one answer"
    return pb.DeliverResponse(packets=[_packet_to_proto(packet) for packet in packets]).SerializeToString()


def decode_deliver_response(data: bytes) -> tuple[Packet, ...]:
    """Read the answer to a packet. Raises `WireError`."""
    message = _parse(pb.DeliverResponse(), data, limits.MAX_DELIVER_BYTES)
    check.at_most(len(message.packets), MAX_LETTERS, "number of packets")
    return tuple(_packet(packet) for packet in message.packets)


def _packet(message: pb.Packet) -> Packet:
    return Packet(
        protocol=message.protocol,
        run_id=check.run_id(message.run_id),
        source=_source(message),
        updates=_members(message.updates, MAX_UPDATES_PER_PACKET, "updates"),
        progress=_progress(message.progress, MAX_PROGRESS_PER_PACKET + 1),
        body=_body(message),
    )


def encode_join_request(request: JoinRequest) -> bytes:
    """Write the question of a join as bytes of the published schema."""
    return pb.JoinRequest(
        protocol=request.protocol,
        run_id=request.run_id,
        source=_member_to_proto(request.source),
        progress=_progress_to_proto(request.progress),
        members=[_member_to_proto(member) for member in request.members],
    ).SerializeToString()


def decode_join_request(data: bytes) -> JoinRequest:
    """Read the question of a join. Raises `WireError`."""
    message = _parse(pb.JoinRequest(), data, limits.MAX_JOIN_BYTES)
    return JoinRequest(
        protocol=message.protocol,
        run_id=check.run_id(message.run_id),
        source=_source(message),
        progress=_progress(message.progress, MAX_PROGRESS_ENTRIES),
        members=_members(message.members, MAX_MEMBERS + MAX_TOMBSTONES, "members"),
    )


def encode_join_response(response: JoinResponse) -> bytes:
    """Write the answer of a join as bytes of the published schema; a refusal's detail is cut at its limit."""
    message = pb.JoinResponse(
        source=_member_to_proto(response.source),
        members=[_member_to_proto(member) for member in response.members],
        progress=_progress_to_proto(response.progress),
    )
    if response.refusal is not None:
        message.refusal.reason = cast("pb.RefusalReason", int(response.refusal.reason))
        message.refusal.detail = response.refusal.detail[: limits.MAX_DETAIL_LENGTH]
    return message.SerializeToString()


def decode_join_response(data: bytes) -> JoinResponse:
    """Read the answer of a join. Raises `WireError`."""
    message = _parse(pb.JoinResponse(), data, limits.MAX_JOIN_BYTES)
    refusal = None
    if message.HasField("refusal"):
        refusal = Refusal(
            check.chosen(RefusalReason, message.refusal.reason, "refusal.reason"),
            check.short_text(message.refusal.detail, "refusal.detail"),
        )
    return JoinResponse(
        refusal=refusal,
        source=_source(message),
        members=_members(message.members, MAX_MEMBERS + MAX_TOMBSTONES, "members"),
        progress=_progress(message.progress, MAX_PROGRESS_ENTRIES),
    )


def _parse(message: MessageT, data: bytes, limit: int) -> MessageT:
    kind = message.DESCRIPTOR.name
    check.at_most(len(data), limit, f"bytes of a {kind}")
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise WireError(f"{len(data)} bytes are no {kind}: {error}") from error
    return message


def _member_to_proto(member: Member) -> pb.Member:
    return pb.Member(
        name=member.id.name,
        boot=member.id.boot,
        address=member.address,
        incarnation=member.incarnation,
        state=cast("pb.MemberState", int(member.state)),
        phase=cast("pb.Phase", int(member.phase)),
        outbound_only=member.outbound_only,
        suspected_by=member.suspected_by,
    )


def _progress_to_proto(entries: Sequence[ProgressEntry]) -> list[pb.ProgressEntry]:
    return [
        pb.ProgressEntry(name=entry.node.name, boot=entry.node.boot, steps=entry.steps, samples=entry.samples)
        for entry in entries
    ]


def _source(message: pb.Packet | pb.JoinRequest | pb.JoinResponse) -> Member:
    if not message.HasField("source"):
        raise WireError("source is missing: a message must say who sends it")
    return _member(message.source, "source")


def _member(message: pb.Member, field: str) -> Member:
    return Member(
        id=check.node_id(message.name, message.boot, f"{field}.name"),
        address=_address(message.address, f"{field}.address"),
        incarnation=check.at_most(message.incarnation, limits.MAX_INCARNATION, f"{field}.incarnation"),
        state=check.chosen(MemberState, message.state, f"{field}.state"),
        phase=check.chosen(Phase, message.phase, f"{field}.phase"),
        outbound_only=message.outbound_only,
        suspected_by=_accuser(message.suspected_by, f"{field}.suspected_by"),
    )


def _accuser(name: str, field: str) -> str:
    return check.node_id(name, 0, field).name if name else ""


def _members(messages: Sequence[pb.Member], limit: int, field: str) -> tuple[Member, ...]:
    check.at_most(len(messages), limit, f"number of {field}")
    return tuple(_member(message, field) for message in messages)


def _progress(messages: Sequence[pb.ProgressEntry], limit: int) -> tuple[ProgressEntry, ...]:
    check.at_most(len(messages), limit, "number of progress entries")
    return tuple(
        ProgressEntry(
            check.node_id(message.name, message.boot, "progress.name"),
            check.at_most(message.steps, limits.MAX_COUNT, "progress.steps"),
            check.at_most(message.samples, limits.MAX_COUNT, "progress.samples"),
        )
        for message in messages
    )


def _address(text: str, field: str) -> Address:
    check.at_most(len(text), limits.MAX_ADDRESS_LENGTH, f"length of {field}")
    host, _, port = text.rpartition(":")
    good_port = port.isascii() and port.isdigit() and len(port) <= len(str(_MAX_PORT)) and 0 < int(port) <= _MAX_PORT
    if not (host and good_port and text.isprintable() and " " not in text):
        raise WireError(f"{field}: {text!r} is no host:port")
    return Address(text)


def _body(message: pb.Packet) -> Body | None:
    match message.WhichOneof("body"):
        case "ping":
            ping = message.ping
            return Ping(ping.sequence, check.node_id(ping.target, ping.target_boot, "ping.target"))
        case "ack":
            return Ack(message.ack.sequence)
        case "ping_request":
            request = message.ping_request
            return PingRequest(
                request.sequence,
                check.node_id(request.target, request.target_boot, "ping_request.target"),
                _address(request.target_address, "ping_request.target_address"),
            )
        case _:
            return None

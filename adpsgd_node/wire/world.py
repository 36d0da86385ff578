"""Encode and decode how the nodes of an algorithm that must know how many there are find each other."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from adpsgd_node.address import split_address
from adpsgd_node.core.algorithms.world import MAX_WORLD
from adpsgd_node.core.membership.packet import Refusal
from adpsgd_node.errors import WireError
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.wire import check, limits
from adpsgd_node.wire.model import decode_refusal, encode_refusal
from adpsgd_node.wire.v1 import membership_pb2, model_pb2

__all__ = [
    "NOWHERE",
    "WorldRequest",
    "WorldResponse",
    "decode_world_request",
    "decode_world_response",
    "encode_world_request",
    "encode_world_response",
]

NOWHERE = Address("")

MAX_WORLD_BYTES = 256 * 1024
"""Longest question or answer: the latter lists all nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldRequest:
    """Asks who takes part, and says that the caller would."""

    protocol: int
    run_id: RunId
    source: NodeId
    size: int
    """Nodes, as the caller is told by `--world-size`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldResponse:
    source: NodeId
    size: int
    """Nodes, as the answering one is told; 0: its algorithm has no world."""
    members: tuple[NodeId, ...] = ()
    """By rank; none while it is not decided, or not known there."""
    rendezvous: Address = NOWHERE
    """`host:port` where the trainer of rank 0 listens; there is one exactly when there are members."""
    refusal: Refusal | None = None


def encode_world_request(request: WorldRequest) -> bytes:
    return model_pb2.WorldRequest(
        protocol=request.protocol, run_id=request.run_id, source=_member(request.source), size=request.size
    ).SerializeToString()


def decode_world_request(data: bytes) -> WorldRequest:
    """Raises `WireError`."""
    message = model_pb2.WorldRequest()
    _parse(message, data)
    return WorldRequest(
        protocol=message.protocol,
        run_id=check.run_id(message.run_id),
        source=check.node_id(message.source.name, message.source.boot, "source"),
        size=check.at_most(message.size, MAX_WORLD, "size"),
    )


def encode_world_response(response: WorldResponse) -> bytes:
    message = model_pb2.WorldResponse(
        source=_member(response.source),
        size=response.size,
        members=[_member(node) for node in response.members],
        rendezvous=response.rendezvous,
    )
    if response.refusal is not None:
        message.refusal.CopyFrom(encode_refusal(response.refusal))
    return message.SerializeToString()


def decode_world_response(data: bytes) -> WorldResponse:
    """Raises `WireError`."""
    message = model_pb2.WorldResponse()
    _parse(message, data)
    check.at_most(len(message.members), MAX_WORLD, "members of a world")
    members = tuple(check.node_id(member.name, member.boot, "member") for member in message.members)
    if len({node.name for node in members}) != len(members):
        raise WireError("a world in which a name stands twice")
    if bool(members) != bool(message.rendezvous):
        raise WireError(f"a world of {len(members)} members with rendezvous {message.rendezvous[:80]!r}")
    return WorldResponse(
        source=check.node_id(message.source.name, message.source.boot, "source"),
        size=check.at_most(message.size, MAX_WORLD, "size"),
        members=members,
        rendezvous=_address(message.rendezvous),
        refusal=decode_refusal(message.refusal) if message.HasField("refusal") else None,
    )


def _member(node: NodeId) -> membership_pb2.Member:
    return membership_pb2.Member(name=node.name, boot=node.boot)


def _address(text: str) -> Address:
    if not text:
        return NOWHERE
    check.at_most(len(text), limits.MAX_ADDRESS_LENGTH, "length of rendezvous")
    try:
        _, port = split_address(text)
    except ValueError as error:
        raise WireError(f"rendezvous: {error}") from None
    if port == 0 or not text.isprintable():
        raise WireError(f"rendezvous: {text!r} is no address to dial")
    return Address(text)


def _parse(message: model_pb2.WorldRequest | model_pb2.WorldResponse, data: bytes) -> None:
    check.at_most(len(data), MAX_WORLD_BYTES, f"length of {type(message).__name__}")
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise WireError(f"bytes that are no {type(message).__name__} came: {error}") from None

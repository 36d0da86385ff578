"""Encode and decode the frames between a worker and a parameter server; chunks as those of an exchange (`framing`)."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from adpsgd_node.core.algorithms.a_psgd import MAX_SERVERS
from adpsgd_node.core.exchange.frame import Chunk, CodecName, Decline, DeclineReason
from adpsgd_node.errors import WireError
from adpsgd_node.ids import NodeId, RunId, SchemaHash
from adpsgd_node.wire import check, limits
from adpsgd_node.wire.framing import checked_chunk, encode_chunk, read_chunk
from adpsgd_node.wire.v1 import exchange_pb2
from adpsgd_node.wire.v1 import server_pb2 as pb

__all__ = ["Pulled", "Push", "UpdateAccept", "UpdateFrame", "UpdateOpen", "decode_update", "encode_update"]

MAX_COUNT = 1 << 62
"""Bound of all counters of pushes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOpen:
    protocol: int
    run_id: RunId
    schema: SchemaHash
    worker: NodeId
    server: NodeId
    codec: CodecName
    chunk_bytes: int
    chunk_count: int
    servers: tuple[str, ...]
    """Names of all servers, in order: they share the chunks out by it."""


@dataclass(frozen=True, slots=True)
class UpdateAccept:
    version: int
    """Pushes that the server has applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    number: int
    """Grows within one boot of the worker; a push that is repeated keeps its number."""
    version: int
    """Of the server, when the worker pulled last."""
    chunks: int
    """That follow."""
    momentum: float = 0.0
    nesterov: bool = False


@dataclass(frozen=True, slots=True)
class Pulled:
    version: int
    staleness: int
    """Pushes of others applied since the worker had pulled."""


UpdateFrame = UpdateOpen | UpdateAccept | Decline | Chunk | Push | Pulled


def encode_update(frame: UpdateFrame) -> bytes:
    match frame:
        case Chunk(index, _, data):
            return encode_chunk(index, 0, data).message
        case UpdateOpen():
            message = pb.UpdateFrame(open=_open_to_proto(frame))
        case UpdateAccept(version):
            message = pb.UpdateFrame(accept=pb.UpdateAccept(version=version))
        case Decline(reason, detail):
            shortened = detail[: limits.MAX_DETAIL_LENGTH]
            decline = exchange_pb2.Decline(reason=exchange_pb2.DeclineReason.Name(reason), detail=shortened)
            message = pb.UpdateFrame(decline=decline)
        case Push():
            push = pb.Push(
                number=frame.number,
                version=frame.version,
                chunks=frame.chunks,
                momentum=frame.momentum,
                nesterov=frame.nesterov,
            )
            message = pb.UpdateFrame(push=push)
        case Pulled(version, staleness):
            message = pb.UpdateFrame(pulled=pb.Pulled(version=version, staleness=staleness))
    return message.SerializeToString()


def decode_update(message: bytes) -> UpdateFrame:
    """Decode one frame; a chunk's data may be a view into `message`. Raises `WireError`, and nothing else."""
    check.at_most(len(message), limits.MAX_MESSAGE_BYTES, "length of an update frame")
    return read_chunk(message) or _parse(message)


def _parse(message: bytes) -> UpdateFrame:
    try:
        proto = pb.UpdateFrame.FromString(message)
    except DecodeError as error:
        raise WireError(f"not an update frame: {error}") from error
    match proto.WhichOneof("frame"):
        case "open":
            return _open_from_proto(proto.open)
        case "accept":
            return UpdateAccept(check.at_most(proto.accept.version, MAX_COUNT, "accept.version"))
        case "decline":
            reason = check.chosen(DeclineReason, proto.decline.reason, "decline.reason")
            return Decline(reason, check.short_text(proto.decline.detail, "decline.detail"))
        case "chunk":
            return checked_chunk(proto.chunk.index, 0, memoryview(proto.chunk.data), proto.chunk.scale)
        case "push":
            return _push_from_proto(proto.push)
        case "pulled":
            version = check.at_most(proto.pulled.version, MAX_COUNT, "pulled.version")
            return Pulled(version, check.at_most(proto.pulled.staleness, MAX_COUNT, "pulled.staleness"))
        case _:
            raise WireError("an update frame of no known kind")


def _push_from_proto(proto: pb.Push) -> Push:
    if not 0.0 <= proto.momentum < 1.0:
        raise WireError(f"push.momentum: expected a number of at least 0 and below 1, got {proto.momentum:g}")
    if not proto.number:
        raise WireError("push.number: expected a number above 0")
    return Push(
        number=check.at_most(proto.number, MAX_COUNT, "push.number"),
        version=check.at_most(proto.version, MAX_COUNT, "push.version"),
        chunks=check.at_most(proto.chunks, limits.MAX_CHUNK_COUNT, "push.chunks"),
        momentum=proto.momentum,
        nesterov=proto.nesterov,
    )


def _open_to_proto(frame: UpdateOpen) -> pb.UpdateOpen:
    return pb.UpdateOpen(
        protocol=frame.protocol,
        run_id=frame.run_id,
        schema=frame.schema,
        worker=frame.worker.name,
        boot=frame.worker.boot,
        server=frame.server.name,
        server_boot=frame.server.boot,
        codec=exchange_pb2.Codec.Name(frame.codec),
        chunk_bytes=frame.chunk_bytes,
        chunk_count=frame.chunk_count,
        servers=frame.servers,
    )


def _open_from_proto(proto: pb.UpdateOpen) -> UpdateOpen:
    check.at_most(len(proto.servers), MAX_SERVERS, "number of servers")
    return UpdateOpen(
        protocol=proto.protocol,
        run_id=check.run_id(proto.run_id),
        schema=check.schema_hash(proto.schema),
        worker=check.node_id(proto.worker, proto.boot, "worker"),
        server=check.node_id(proto.server, proto.server_boot, "server"),
        codec=check.chosen(CodecName, proto.codec, "codec"),
        chunk_bytes=check.at_most(proto.chunk_bytes, limits.MAX_CHUNK_BYTES, "chunk_bytes"),
        chunk_count=check.at_most(proto.chunk_count, limits.MAX_CHUNK_COUNT, "chunk_count"),
        servers=tuple(check.short_text(name, "servers") for name in proto.servers),
    )

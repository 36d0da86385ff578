"""Encode and decode the control frames between a daemon and its own trainer.

On the socket each frame is a little-endian uint32 length and that many bytes of `TrainerFrame` of the published schema.
`encode` and `decode` deal in the bytes after the length; `pack` adds it and `frame_length` reads it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.errors import WireError
from adpsgd_node.ids import RunId, SchemaHash
from adpsgd_node.wire.check import at_most, chosen, run_id, schema_hash
from adpsgd_node.wire.v1 import model_pb2, trainer_pb2

__all__ = [
    "LENGTH_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_TENSORS",
    "MAX_TEXT_BYTES",
    "Agreed",
    "Attach",
    "Attached",
    "Failed",
    "Go",
    "Ready",
    "Saved",
    "Settle",
    "TrainerFrame",
    "decode",
    "encode",
    "frame_length",
    "pack",
]

MAX_FRAME_BYTES = 64 << 20
"""Longest control frame; the largest is `Attach` with its tensors."""

MAX_TENSORS = 100_000
"""Most tensors in an `Attach` (the limit of the plane)."""

MAX_DIMENSIONS = 32
"""Most dimensions of a tensor (the limit of the plane)."""

MAX_PORT = 65535

MAX_TEXT_BYTES = 4096
"""Longest text in a frame, in UTF-8 bytes; a longer `detail` is cut when it is encoded."""

LENGTH_BYTES = 4
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """Trainer -> daemon, first: what the model looks like."""

    pid: int
    tensors: tuple[TensorSpec, ...]
    dataset_size: int = 0
    """Samples in the training set; 0: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """Daemon -> trainer; the descriptors of plane, step event and gate event travel with it."""

    daemon_pid: int
    node: str
    run_id: RunId
    schema: SchemaHash
    chunk_bytes: int
    resumed: bool
    """The plane holds what an earlier trainer of this node left: load it."""
    output: str
    """Folder for the model file; empty: write none."""
    state_folder: str = ""
    """Where the trainer writes its part of a checkpoint when the plane's header asks for it; empty: it never does."""
    algorithm: str = "ad-psgd"
    """As in `--algorithm`: what a step waits for."""
    slow_factor: float = 1.0
    """Stretch computing by this factor, at least 1."""
    emulate_step_s: float = 0.0
    """Computing takes at least so long, in seconds, before it is stretched; 0: as long as it takes."""
    host: str = ""
    """By which peers reach this machine: a trainer that speaks with those of other nodes listens there."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Trainer -> daemon: initial parameters stand in `live`; until `Go` the daemon may write there."""

    port: int = 0
    """Where a trainer that speaks with those of other nodes listens; 0: it does not."""


@dataclass(frozen=True, slots=True)
class Go:
    """Daemon -> trainer: start stepping."""

    adopted: bool = False
    """`live` now holds the parameters to begin with: a peer's, or those of a checkpoint."""
    donor: str = ""
    """Who gave them; empty: nobody."""
    restore: str = ""
    """The trainer's part of this node's checkpoint (optimizer, random numbers); empty: none."""
    world_size: int = 0
    """Nodes of an algorithm that knows how many there are; 0: it does not."""
    rank: int = 0
    """Of this node among them."""
    rendezvous: str = ""
    """`host:port` where the trainer of rank 0 listens for the others."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Trainer -> daemon: stepping has stopped; settle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """Daemon -> trainer: the run's models agree."""

    consensus_distance: float
    steps_total: int
    samples_total: int
    members: int


@dataclass(frozen=True, slots=True)
class Saved:
    """Trainer -> daemon: the model is written (path empty: nothing was asked for)."""

    path: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Daemon -> trainer: cannot go on; `detail` names the fix."""

    code: str
    """Name of the error of `adpsgd_node.errors` that the trainer raises, e.g. `SchemaMismatchError`."""
    detail: str


TrainerFrame = Attach | Attached | Ready | Go | Settle | Agreed | Saved | Failed


def encode(frame: TrainerFrame) -> bytes:
    """Turn a frame into bytes of the published schema."""
    encoded = _message(frame).SerializeToString()
    if len(encoded) > MAX_FRAME_BYTES:
        raise WireError(f"a {type(frame).__name__} frame of {len(encoded)} bytes is over the {MAX_FRAME_BYTES} allowed")
    return encoded


def pack(frame: TrainerFrame) -> bytes:
    """Turn a frame into what goes over the socket: its length, then its bytes."""
    encoded = encode(frame)
    return _LENGTH.pack(len(encoded)) + encoded


def frame_length(prefix: bytes) -> int:
    """Read the length that precedes a frame. Raises `WireError` when it is over the limit."""
    length: int = _LENGTH.unpack(prefix)[0]
    return at_most(length, MAX_FRAME_BYTES, "bytes of a control frame")


def decode(data: bytes) -> TrainerFrame:
    """Read one frame. Raises `WireError` naming what is wrong with it."""
    at_most(len(data), MAX_FRAME_BYTES, "bytes of a control frame")
    message = trainer_pb2.TrainerFrame()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise WireError(f"a control frame of {len(data)} bytes is no TrainerFrame: {error}") from error
    match message.WhichOneof("frame"):
        case "attach":
            return _read_attach(message.attach)
        case "attached":
            return _read_attached(message.attached)
        case "ready":
            return Ready(at_most(message.ready.port, MAX_PORT, "ready.port"))
        case "go":
            return _read_go(message.go)
        case "settle":
            return Settle()
        case "agreed":
            return _read_agreed(message.agreed)
        case "saved":
            return Saved(_text(message.saved.path, "saved.path"))
        case "failed":
            return Failed(_text(message.failed.code, "failed.code"), _text(message.failed.detail, "failed.detail"))
    raise WireError("a control frame holds no frame: daemon and trainer run different versions of adpsgd-node")


def _message(frame: TrainerFrame) -> trainer_pb2.TrainerFrame:
    match frame:
        case Attach():
            return trainer_pb2.TrainerFrame(attach=_attach(frame))
        case Attached():
            return trainer_pb2.TrainerFrame(attached=_attached(frame))
        case Ready():
            return trainer_pb2.TrainerFrame(ready=trainer_pb2.Ready(port=frame.port))
        case Go():
            return trainer_pb2.TrainerFrame(go=_go(frame))
        case Settle():
            return trainer_pb2.TrainerFrame(settle=trainer_pb2.Settle())
        case Agreed():
            return trainer_pb2.TrainerFrame(agreed=_agreed(frame))
        case Saved():
            return trainer_pb2.TrainerFrame(saved=trainer_pb2.Saved(path=frame.path))
        case Failed():
            return trainer_pb2.TrainerFrame(failed=trainer_pb2.Failed(code=_cut(frame.code), detail=_cut(frame.detail)))


def _attach(frame: Attach) -> trainer_pb2.Attach:
    tensors = [
        model_pb2.TensorSpec(
            name=spec.name, shape=spec.shape, dtype=spec.dtype, segment=model_pb2.Segment.Name(int(spec.segment))
        )
        for spec in frame.tensors
    ]
    return trainer_pb2.Attach(pid=frame.pid, tensors=tensors, dataset_size=frame.dataset_size)


def _read_attach(message: trainer_pb2.Attach) -> Attach:
    at_most(len(message.tensors), MAX_TENSORS, "tensors of an attach frame")
    tensors = tuple(_read_tensor(tensor) for tensor in message.tensors)
    return Attach(pid=message.pid, tensors=tensors, dataset_size=message.dataset_size)


def _read_tensor(message: model_pb2.TensorSpec) -> TensorSpec:
    name = _text(message.name, "tensor name")
    at_most(len(message.shape), MAX_DIMENSIONS, f"dimensions of tensor {name}")
    segment = chosen(Segment, message.segment, f"segment of tensor {name}")
    return TensorSpec(name, tuple(message.shape), _text(message.dtype, f"dtype of tensor {name}"), segment)


def _attached(frame: Attached) -> trainer_pb2.Attached:
    return trainer_pb2.Attached(
        daemon_pid=frame.daemon_pid,
        node=frame.node,
        run_id=frame.run_id,
        schema=frame.schema,
        chunk_bytes=frame.chunk_bytes,
        resumed=frame.resumed,
        output=frame.output,
        state_folder=frame.state_folder,
        algorithm=frame.algorithm,
        slow_factor=frame.slow_factor,
        emulate_step_s=frame.emulate_step_s,
        host=frame.host,
    )


def _read_attached(message: trainer_pb2.Attached) -> Attached:
    return Attached(
        daemon_pid=message.daemon_pid,
        node=_text(message.node, "attached.node"),
        run_id=run_id(message.run_id),
        schema=schema_hash(message.schema),
        chunk_bytes=message.chunk_bytes,
        resumed=message.resumed,
        output=_text(message.output, "attached.output"),
        state_folder=_text(message.state_folder, "attached.state_folder"),
        algorithm=_text(message.algorithm, "attached.algorithm"),
        slow_factor=_number(message.slow_factor, "attached.slow_factor"),
        emulate_step_s=_number(message.emulate_step_s, "attached.emulate_step_s"),
        host=_text(message.host, "attached.host"),
    )


def _go(frame: Go) -> trainer_pb2.Go:
    return trainer_pb2.Go(
        adopted=frame.adopted,
        donor=frame.donor,
        restore=frame.restore,
        world_size=frame.world_size,
        rank=frame.rank,
        rendezvous=frame.rendezvous,
    )


def _read_go(message: trainer_pb2.Go) -> Go:
    return Go(
        adopted=message.adopted,
        donor=_text(message.donor, "go.donor"),
        restore=_text(message.restore, "go.restore"),
        world_size=message.world_size,
        rank=message.rank,
        rendezvous=_text(message.rendezvous, "go.rendezvous"),
    )


def _agreed(frame: Agreed) -> trainer_pb2.Agreed:
    return trainer_pb2.Agreed(
        consensus_distance=frame.consensus_distance,
        steps_total=frame.steps_total,
        samples_total=frame.samples_total,
        members=frame.members,
    )


def _read_agreed(message: trainer_pb2.Agreed) -> Agreed:
    return Agreed(
        consensus_distance=message.consensus_distance,
        steps_total=message.steps_total,
        samples_total=message.samples_total,
        members=message.members,
    )


def _number(value: float, field: str) -> float:
    if not 0.0 <= value < math.inf:
        raise WireError(f"{field}: expected a number of at least 0, got {value:g}")
    return value


def _text(text: str, field: str) -> str:
    at_most(len(text.encode()), MAX_TEXT_BYTES, f"bytes of {field}")
    return text


def _cut(text: str) -> str:
    return text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")

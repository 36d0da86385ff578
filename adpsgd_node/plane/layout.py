"""Place every exchanged tensor in one flat fp32 vector, cut into chunks.

All nodes of a run compute the same layout from the same tensors: parameters first, then float buffers, each tensor
aligned to a cache line, so that chunk c means the same elements everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.errors import PlaneError
from adpsgd_node.ids import SchemaHash

__all__ = [
    "ALIGNMENT",
    "ELEMENT_BYTES",
    "MAX_CHUNK_BYTES",
    "MAX_DIMENSIONS",
    "MAX_ELEMENTS",
    "MAX_TENSORS",
    "MAX_TENSOR_NAME_LENGTH",
    "MIN_CHUNK_BYTES",
    "Layout",
    "Placement",
    "Segment",
    "TensorSpec",
    "describe_difference",
    "schema_of",
]

ELEMENT_BYTES = 4
"""The plane holds fp32, whatever the model's dtype."""

ALIGNMENT = 16
"""Every tensor starts at a multiple of this many elements: one cache line."""

MAX_TENSORS = 100_000
"""Most exchanged tensors of a model."""

MAX_ELEMENTS = 1 << 34
"""Most elements of a plane: 64 GiB for each of its vectors."""

MAX_TENSOR_NAME_LENGTH = 512
"""Longest tensor name, in UTF-8 bytes."""

MAX_DIMENSIONS = 32
"""Most dimensions of a tensor."""

MIN_CHUNK_BYTES = ALIGNMENT * ELEMENT_BYTES
"""Smallest chunk: one cache line (tests use it; production starts from 1 MiB)."""

MAX_CHUNK_BYTES = 1 << 24
"""Largest chunk: it crosses the wire as one message."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one tensor lives: elements [start, stop) of the flat vector."""

    spec: TensorSpec
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The flat vector: which tensor lies where, and where the chunks are."""

    placements: tuple[Placement, ...]
    chunks: tuple[tuple[int, int], ...]
    """Element range [start, stop) of each chunk; none crosses from parameters into buffers."""
    elements: int
    chunk_bytes: int
    schema: SchemaHash
    boundary: int
    """First element of the buffers: chunks before it hold parameters only."""

    @classmethod
    def build(cls, specs: Sequence[TensorSpec], chunk_bytes: int) -> Layout:
        """Lay `specs` out in their order, parameters before buffers. Raises `PlaneError` naming the tensor."""
        _check_chunk_bytes(chunk_bytes)
        _check_specs(specs)
        placements: list[Placement] = []
        position = 0
        boundary = 0
        for segment in (Segment.PARAMETERS, Segment.BUFFERS):
            boundary = position
            for spec in specs:
                if spec.segment is segment:
                    placements.append(Placement(spec, position, position + spec.elements))
                    position = _aligned(position + spec.elements)
        if position == 0:
            raise PlaneError("the model has no floating-point parameter to exchange: give join() a model that trains")
        if position > MAX_ELEMENTS:
            raise PlaneError(f"the model has {position} elements, more than the {MAX_ELEMENTS} a plane can hold")
        step = chunk_bytes // ELEMENT_BYTES
        chunks = (*_cut(0, boundary, step), *_cut(boundary, position, step))
        return cls(tuple(placements), chunks, position, chunk_bytes, schema_of(specs), boundary)

    def segment(self, chunk: int) -> Segment:
        """Tell which segment a chunk belongs to."""
        return Segment.PARAMETERS if self.chunks[chunk][0] < self.boundary else Segment.BUFFERS


def schema_of(specs: Iterable[TensorSpec]) -> SchemaHash:
    """Hash names, shapes, dtypes and segments in the order of the plane: equal for models that can average."""
    digest = hashlib.sha256(b"adpsgd-schema-1\0")
    for spec in sorted(specs, key=lambda spec: spec.segment):  # stable: order within a segment counts
        shape = ",".join(map(str, spec.shape))
        digest.update(f"{spec.name}\0{shape}\0{spec.dtype}\0{int(spec.segment)}\0".encode())
    return SchemaHash(digest.digest())


def describe_difference(ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec]) -> str:
    """Name, in one sentence, the first tensor in which two models differ."""
    ordered_ours = sorted(ours, key=lambda spec: spec.segment)
    ordered_theirs = sorted(theirs, key=lambda spec: spec.segment)
    for ordinal, (mine, other) in enumerate(zip(ordered_ours, ordered_theirs, strict=False)):
        if mine != other:
            kind = f" ({mine.segment.name.lower()} here, {other.segment.name.lower()} there)"
            return f"tensor {ordinal} is {mine} here and {other} there{kind if mine.segment != other.segment else ''}"
    if len(ours) == len(theirs):
        return "the models are the same"
    longer, side = (ordered_ours, "here") if len(ours) > len(theirs) else (ordered_theirs, "there")
    extra = longer[min(len(ours), len(theirs))]
    return f"there are {len(ours)} tensors here and {len(theirs)} there: {extra} is only {side}"


def _check_chunk_bytes(chunk_bytes: int) -> None:
    if not MIN_CHUNK_BYTES <= chunk_bytes <= MAX_CHUNK_BYTES or chunk_bytes % MIN_CHUNK_BYTES:
        raise PlaneError(
            f"chunk size {chunk_bytes} does not fit: choose a multiple of {MIN_CHUNK_BYTES}, at most {MAX_CHUNK_BYTES}"
        )


def _check_specs(specs: Sequence[TensorSpec]) -> None:
    if len(specs) > MAX_TENSORS:
        raise PlaneError(f"the model has {len(specs)} tensors, more than the {MAX_TENSORS} a plane can hold")
    names: set[str] = set()
    for spec in specs:
        if not spec.name or len(spec.name.encode()) > MAX_TENSOR_NAME_LENGTH or "\0" in spec.name:
            raise PlaneError(
                f"tensor name {spec.name[:80]!r} does not fit: 1 to {MAX_TENSOR_NAME_LENGTH} bytes without NUL"
            )
        if spec.name in names:
            raise PlaneError(f"two tensors are named {spec.name!r}: names must be unique")
        if len(spec.shape) > MAX_DIMENSIONS or any(side < 0 for side in spec.shape):
            raise PlaneError(f"tensor {spec} does not fit: at most {MAX_DIMENSIONS} dimensions, none negative")
        names.add(spec.name)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _cut(start: int, stop: int, step: int) -> tuple[tuple[int, int], ...]:
    return tuple((at, min(at + step, stop)) for at in range(start, stop, step))

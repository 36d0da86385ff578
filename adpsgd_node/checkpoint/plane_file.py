"""Write the view of a running plane as a safetensors file, part by part, and read such a file back into `live`.

The trainer goes on stepping meanwhile: parts of the file come from different steps, as they do in an exchange. All
values are fp32: the master weights and the float buffers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from adpsgd_node.checkpoint.model_file import StoredEntry, encode_header, read_header
from adpsgd_node.errors import CheckpointError, TrainerError
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.plane.layout import ELEMENT_BYTES
from adpsgd_node.plane.plane import Vector

__all__ = ["load_model", "model_header", "model_parts"]

DTYPE = "float32"
CODE = "F32"


def model_header(layout: Layout, metadata: Mapping[str, str]) -> bytes:
    """Write what stands before the tensors."""
    entries = (
        StoredEntry(p.spec.name, DTYPE, p.spec.shape, ELEMENT_BYTES * (p.stop - p.start)) for p in layout.placements
    )
    return encode_header(entries, metadata)


def model_parts(plane: Plane) -> Iterator[list[memoryview]]:
    """Copy the view chunk by chunk: the bytes of its tensors, which stand until the next part is asked for.

    Ask in the daemon's own thread: nothing else may write to `inbox` while a chunk is read. Raises `CheckpointError`
    when a chunk is not finite: to start from such a model would be of no use to anyone.
    """
    layout = plane.layout
    buffer = np.empty(max(stop - start for start, stop in layout.chunks), np.float32)
    for chunk, ranges in enumerate(_ranges(layout)):
        start, stop = layout.chunks[chunk]
        part = buffer[: stop - start]
        view = plane.read_view(chunk, part)
        if view.ctypes.data != part.ctypes.data:
            np.copyto(part, view)
        if not np.isfinite(part).all():
            raise CheckpointError(f"chunk {chunk} of this node's parameters is not finite: there is nothing to keep")
        yield [part[first - start : last - start].data.cast("B") for first, last in ranges]


def load_model(path: Path, layout: Layout, live: Vector) -> None:
    """Read a file of `model_parts` into `live`, whose padding stays as it is. Raises `CheckpointError`."""
    try:
        header, at = read_header(path)
        with path.open("rb") as file:
            for placement in layout.placements:
                name, size_bytes = placement.spec.name, ELEMENT_BYTES * (placement.stop - placement.start)
                entry = header.get(name)
                if not isinstance(entry, dict) or not _fits(entry, placement.spec.shape, size_bytes):
                    raise CheckpointError(f"{path}: tensor {name!r} is missing, or not what it should be")
                if not size_bytes:
                    continue
                file.seek(at + entry["data_offsets"][0])
                if file.readinto(live[placement.start : placement.stop].data.cast("B")) != size_bytes:
                    raise CheckpointError(f"{path}: it is torn: tensor {name!r} is not whole")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except TrainerError:
        raise CheckpointError(f"{path}: it is damaged: no safetensors file") from None


def _fits(entry: dict[str, object], shape: tuple[int, ...], size_bytes: int) -> bool:
    if entry.get("dtype") != CODE or entry.get("shape") != list(shape):
        return False
    match entry.get("data_offsets"):
        case [int(first), int(last)]:
            return first >= 0 and last - first == size_bytes
    return False


def _ranges(layout: Layout) -> Iterator[list[tuple[int, int]]]:
    """Give, chunk by chunk, the element ranges that belong to tensors: all but the padding between them."""
    placements = iter(layout.placements)
    current = next(placements, None)
    for start, stop in layout.chunks:
        ranges: list[tuple[int, int]] = []
        while current is not None and current.start < stop:
            first, last = max(current.start, start), min(current.stop, stop)
            if ranges and ranges[-1][1] == first:
                ranges[-1] = (ranges[-1][0], last)
            elif first < last:
                ranges.append((first, last))
            if current.stop > stop:
                break  # the rest of this tensor is in the next chunk
            current = next(placements, None)
        yield ranges

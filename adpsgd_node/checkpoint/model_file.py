"""Write and read a model as one safetensors file, tensors of any dtype included, without torch.

The format is short and fixed: a little-endian uint64 header length, a JSON header, then the raw tensors. Writing it
here streams the tensors straight from their memory and does not depend on what a version of the library accepts.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from adpsgd_node.checkpoint.disk import sync_folder
from adpsgd_node.errors import TrainerError

__all__ = [
    "MAX_HEADER_BYTES",
    "StoredEntry",
    "StoredTensor",
    "encode_header",
    "read_header",
    "read_metadata",
    "read_tensors",
    "storable",
    "write_model",
]

MAX_HEADER_BYTES = 100_000_000
"""Longest JSON header that is read (the limit of the safetensors library)."""

_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8
"""The first tensor starts at a multiple of this many bytes."""

_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "complex64": "C64",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}

_FLOATS: dict[str, npt.DTypeLike] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as bytes, contiguous and little-endian."""

    name: str
    dtype: str
    """As torch and numpy call it, e.g. `bfloat16`."""
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """What the header says of one tensor; the tensors follow it in the order of their entries."""

    name: str
    dtype: str
    """As torch and numpy call it, e.g. `bfloat16`."""
    shape: tuple[int, ...]
    size_bytes: int


def storable(dtype: str) -> bool:
    """Tell whether tensors of this dtype can be written."""
    return dtype in _CODES


def write_model(path: Path, tensors: Sequence[StoredTensor], metadata: Mapping[str, str]) -> None:
    """Write the file whole or not at all: beside its place, synced, then renamed over it.

    Raises `TrainerError` naming the path; what stood there before is then unchanged.
    """
    entries = [StoredEntry(tensor.name, tensor.dtype, tensor.shape, tensor.data.nbytes) for tensor in tensors]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(encode_header(entries, metadata))
            for tensor in tensors:
                file.write(tensor.data.data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # the failure that led here is the one to raise
            temporary.unlink(missing_ok=True)
        raise TrainerError(
            f"cannot write the model to {path}: {error.strerror or error}; choose another folder with --output"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """Read what the file says of itself: run, schema, node, steps, ..."""
    header, _ = read_header(path)
    return dict(header.get("__metadata__", {}))


def read_tensors(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Read all floating-point tensors as fp32, to compare models: integer ones are each node's own."""
    header, start = read_header(path)
    content = (
        np.memmap(path, np.uint8, mode="r", offset=start) if path.stat().st_size > start else np.empty(0, np.uint8)
    )
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in _FLOATS:
            continue
        first, last = entry["data_offsets"]
        if not 0 <= first <= last <= content.size:
            raise TrainerError(f"{path} is cut short: tensor {name!r} is not whole; fetch the file again")
        stored = np.frombuffer(content[first:last].tobytes(), _FLOATS[entry["dtype"]])
        tensors[name] = stored.astype(np.float32).reshape(entry["shape"])
    return tensors


def encode_header(entries: Iterable[StoredEntry], metadata: Mapping[str, str]) -> bytes:
    """Write all that stands before the tensors: the length and the JSON header."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": _CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [at, at + entry.size_bytes],
        }
        at += entry.size_bytes
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    return _LENGTH.pack(len(encoded)) + encoded


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Give the JSON header and where the tensors start. Raises `TrainerError`."""
    try:
        with path.open("rb") as file:
            prefix = file.read(_LENGTH.size)
            length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else MAX_HEADER_BYTES + 1
            encoded = file.read(length) if length <= MAX_HEADER_BYTES else b""
        header = json.loads(encoded)
    except OSError as error:
        raise TrainerError(f"cannot read the model {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise TrainerError(f"{path} is no safetensors file: write it with finish(), or fetch it again") from error
    return header, _LENGTH.size + length

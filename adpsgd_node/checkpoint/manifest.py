"""Say what a checkpoint holds: whose it is, how far the run was, and each file's size and digest.

The manifest is written last and vouches for the rest. It vouches for itself too: its text must be, to the byte, what
`encode_manifest` makes of its content, and that includes a digest over all other lines.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from adpsgd_node.core.adoption import Standing
from adpsgd_node.core.progress import MAX_PROGRESS_ENTRIES, ProgressEntry
from adpsgd_node.errors import CheckpointError
from adpsgd_node.ids import MAX_BOOT, Address, NodeId, RunId, SchemaHash, valid_name
from adpsgd_node.wire.limits import MAX_ADDRESS_LENGTH, MAX_COUNT, SCHEMA_BYTES

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_FILE",
    "MAX_HINTS",
    "MAX_MANIFEST_BYTES",
    "MAX_TEXT_LENGTH",
    "MODEL_FILE",
    "TRAINER_FILE",
    "Hint",
    "Manifest",
    "StoredFile",
    "decode_manifest",
    "encode_manifest",
]

FORMAT_VERSION = 1
"""Of the whole checkpoint; a reader refuses a later one."""

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.safetensors"
TRAINER_FILE = "trainer.pt"

MAX_MANIFEST_BYTES = 8 << 20
"""Longest manifest that is read."""
MAX_HINTS = 1024
"""Most members that a manifest names."""
MAX_FILES = 16
MAX_TEXT_LENGTH = 1024
"""Longest text of one field."""
DIGEST_LENGTH = 64
"""Of a SHA-256 in hexadecimal."""
MAX_FILE_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class Hint:
    """A member that lived when the checkpoint was written, and where."""

    name: str
    address: Address


@dataclass(frozen=True, slots=True)
class StoredFile:
    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything a checkpoint says of itself."""

    run_id: RunId
    node: NodeId
    schema: SchemaHash
    step: int
    """Steps of this boot of the node."""
    samples: int
    run_steps: int
    """Steps of all nodes together, as known when it was written."""
    run_samples: int
    progress: tuple[ProgressEntry, ...]
    members: tuple[Hint, ...]
    reason: str
    """Why it was written: `interval`, `drain`, ..."""
    written_at: str
    """For people; nothing is decided by it."""
    trainer_absent: str = ""
    """Why the trainer's part is missing; empty: it is there."""
    files: tuple[StoredFile, ...] = ()

    @property
    def standing(self) -> Standing:
        """How far the run was: what the newest is chosen by."""
        return Standing(self.run_samples, self.run_steps)


def encode_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as JSON, one field a line, the digest of the other lines last."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in _fields(manifest).items()]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return ("{\n" + ",\n".join([*lines, f'"digest": "{digest}"']) + "\n}\n").encode()


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest. Raises `CheckpointError` with the reason why it cannot be used, without its path."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise CheckpointError("it is torn or damaged: no whole JSON text") from None
    if not isinstance(fields, dict):
        raise CheckpointError("it is damaged: no JSON object")
    version = fields.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"its format version is {version}, this program reads up to {FORMAT_VERSION}: "
            "use the version of adpsgd-node that wrote it"
        )
    manifest = _manifest(_Reader(fields))
    if encode_manifest(manifest) != data:
        raise CheckpointError("it is damaged: its digest does not match its content")
    return manifest


def _fields(manifest: Manifest) -> dict[str, Any]:
    return {
        "version": FORMAT_VERSION,
        "run": manifest.run_id,
        "node": manifest.node.name,
        "boot": manifest.node.boot,
        "schema": manifest.schema.hex(),
        "step": manifest.step,
        "samples": manifest.samples,
        "run_steps": manifest.run_steps,
        "run_samples": manifest.run_samples,
        "reason": manifest.reason,
        "written_at": manifest.written_at,
        "trainer_absent": manifest.trainer_absent,
        "files": [[file.name, file.size_bytes, file.sha256] for file in manifest.files],
        "members": [[hint.name, hint.address] for hint in manifest.members],
        "progress": [[entry.node.name, entry.node.boot, entry.steps, entry.samples] for entry in manifest.progress],
    }


class _Reader:
    """Take typed, bounded values out of a JSON object."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def text(self, key: str, longest: int = MAX_TEXT_LENGTH) -> str:
        return _text(key, self._fields.get(key), longest)

    def count(self, key: str, most: int = MAX_COUNT * MAX_PROGRESS_ENTRIES) -> int:
        return _count(key, self._fields.get(key), most)

    def rows(self, key: str, width: int, most: int) -> list[list[Any]]:
        rows = self._fields.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == width for row in rows):
            raise _damaged(key)
        if len(rows) > most:
            raise CheckpointError(f"it lists {len(rows)} {key}; at most {most} are read")
        return rows


def _manifest(read: _Reader) -> Manifest:
    return Manifest(
        run_id=RunId(_name("run", read.text("run"))),
        node=NodeId(_name("node", read.text("node")), read.count("boot", MAX_BOOT)),
        schema=_schema(read.text("schema")),
        step=read.count("step"),
        samples=read.count("samples"),
        run_steps=read.count("run_steps"),
        run_samples=read.count("run_samples"),
        reason=read.text("reason"),
        written_at=read.text("written_at"),
        trainer_absent=read.text("trainer_absent"),
        files=tuple(_file(*row) for row in read.rows("files", 3, MAX_FILES)),
        members=tuple(
            Hint(_name("members", name), Address(_text("members", address, MAX_ADDRESS_LENGTH)))
            for name, address in read.rows("members", 2, MAX_HINTS)
        ),
        progress=tuple(_entry(*row) for row in read.rows("progress", 4, MAX_PROGRESS_ENTRIES)),
    )


def _file(name: object, size_bytes: object, sha256: object) -> StoredFile:
    plain = _text("files", name, MAX_TEXT_LENGTH)
    if plain not in (MODEL_FILE, TRAINER_FILE):  # never a path that leads out of the checkpoint
        raise CheckpointError(f"it lists the file {plain!r}, which no checkpoint of this version has")
    digest = _text("files", sha256, DIGEST_LENGTH)
    if len(digest) != DIGEST_LENGTH:
        raise _damaged("files")
    return StoredFile(plain, _count("files", size_bytes, MAX_FILE_BYTES), digest)


def _entry(name: object, boot: object, steps: object, samples: object) -> ProgressEntry:
    node = NodeId(_name("progress", name), _count("progress", boot, MAX_BOOT))
    return ProgressEntry(node, _count("progress", steps, MAX_COUNT), _count("progress", samples, MAX_COUNT))


def _schema(text: str) -> SchemaHash:
    try:
        schema = bytes.fromhex(text)
    except ValueError:
        raise _damaged("schema") from None
    if len(schema) != SCHEMA_BYTES:
        raise _damaged("schema")
    return SchemaHash(schema)


def _name(key: str, value: object) -> str:
    if not isinstance(value, str) or not valid_name(value):
        raise _damaged(key)
    return value


def _text(key: str, value: object, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise _damaged(key)
    return value


def _count(key: str, value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise _damaged(key)
    return value


def _damaged(key: str) -> CheckpointError:
    return CheckpointError(f"it is damaged: field {key!r} is missing or holds what it should not")

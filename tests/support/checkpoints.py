"""Checkpoints for tests: a small plane, a store in a folder, and a disk that stops at a chosen operation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adpsgd_node.checkpoint import disk
from adpsgd_node.checkpoint.manifest import MODEL_FILE, TRAINER_FILE, Hint, Manifest
from adpsgd_node.checkpoint.plane_file import model_header, model_parts
from adpsgd_node.checkpoint.store import Checkpoint, Store
from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.errors import CheckpointError
from adpsgd_node.ids import Address, NodeId, RunId, SchemaHash
from adpsgd_node.plane import Layout, Plane

RUN = RunId("run")
SPECS = (
    TensorSpec("weight", (5, 7), "float32", Segment.PARAMETERS),
    TensorSpec("scale", (), "bfloat16", Segment.PARAMETERS),
    TensorSpec("nothing", (0, 3), "float32", Segment.PARAMETERS),
    TensorSpec("long", (100,), "float32", Segment.PARAMETERS),
    TensorSpec("mean", (3,), "float32", Segment.BUFFERS),
)
LAYOUT = Layout.build(SPECS, 128)


def plane_of(value: float) -> Plane:
    """Make a plane whose parameters tell which one it is."""
    plane = Plane.create(LAYOUT)
    for placement in LAYOUT.placements:
        plane.live[placement.start : placement.stop] = value + np.arange(placement.stop - placement.start)
    return plane


def manifest_of(samples: int = 100, run: str = RUN, schema: SchemaHash = LAYOUT.schema) -> Manifest:
    node = NodeId("n0", 7)
    return Manifest(
        run_id=RunId(run),
        node=node,
        schema=schema,
        step=samples // 10,
        samples=samples,
        run_steps=samples // 5,
        run_samples=2 * samples,
        progress=(ProgressEntry(node, samples // 10, samples), ProgressEntry(NodeId("n1", 3), samples // 10, samples)),
        members=(Hint("n1", Address("10.0.0.2:7400")),),
        reason="interval",
        written_at="2026-01-02T03:04:05+00:00",
    )


def write(store: Store, plane: Plane, manifest: Manifest, trainer: bytes | None = b"optimizer") -> Checkpoint:
    """Write a checkpoint as a node does, without its threads."""
    draft = store.draft()
    if trainer is not None:
        source = store.trainer_folder / "state-1.pt"
        source.write_bytes(trainer)
        draft.take(source, TRAINER_FILE)
    writer = draft.create(MODEL_FILE)
    writer.write([model_header(plane.layout, {"run": manifest.run_id})])
    for part in model_parts(plane):
        writer.write(part)
    draft.add(writer.close())
    return draft.commit(manifest)


def usable(store: Store, schema: SchemaHash | None = LAYOUT.schema) -> tuple[list[Checkpoint], list[str]]:
    """List what may be used, contents included, and the refusals."""
    refused: list[str] = []

    def note(error: CheckpointError) -> None:
        refused.append(str(error))

    found = []
    for checkpoint in store.usable(RUN, schema, note):
        try:
            checkpoint.verify()
        except CheckpointError as error:
            note(error)
        else:
            found.append(checkpoint)
    return found, refused


class Crash(BaseException):
    """The process dies here: nothing after it runs."""


class CrashingDisk:
    """Counts the operations of `checkpoint.disk`, and dies at one of them: before it, or in its middle."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.crash_at: int | None = None
        for owner, name in (
            (disk, "rename"),
            (disk, "sync_folder"),
            (disk, "remove_folder"),
            (disk, "digest_of"),
            (disk.FileWriter, "close"),
        ):
            monkeypatch.setattr(owner, name, self._watched(name, getattr(owner, name)))
        monkeypatch.setattr(disk.FileWriter, "write", self._watched_write(disk.FileWriter.write))

    def _watched(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            self._reach(name)
            return work(*arguments)

        return run

    def _watched_write(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def run(writer: disk.FileWriter, parts: Any) -> None:
            whole = b"".join(bytes(part) for part in parts)
            try:
                self._reach("write")
            except Crash:
                write(writer, [whole[: len(whole) // 2]])
                writer._file.flush()  # half of it had reached the disk
                raise
            write(writer, [whole])

        return run

    def _reach(self, name: str) -> None:
        self.done.append(name)
        if self.crash_at is not None and len(self.done) > self.crash_at:
            raise Crash(name)


def flip(path: Path, at: int) -> None:
    """Flip one bit of one byte."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0x04
    path.write_bytes(content)

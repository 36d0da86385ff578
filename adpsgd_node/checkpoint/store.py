"""Keep the checkpoints of one node in one folder, each whole or not there at all.

    000007/               a checkpoint; a larger number is a later one
        manifest.json     written last: it vouches for the others
        model.safetensors
        trainer.pt
    .tmp-8a1f.../         one being written; renamed to its number once everything in it stands on the disk
    .trainer/             where the trainer puts its part before it is taken over
    .lock                 held by the daemon that writes here

A checkpoint is trusted when its manifest is whole and of this run and model, and its files have the sizes and digests
that the manifest says. Any other is refused by name, with the reason, and the one before it is tried.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from adpsgd_node.checkpoint import disk
from adpsgd_node.checkpoint.disk import FileWriter
from adpsgd_node.checkpoint.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    MODEL_FILE,
    TRAINER_FILE,
    Manifest,
    StoredFile,
    decode_manifest,
    encode_manifest,
)
from adpsgd_node.errors import CheckpointError, ConfigError
from adpsgd_node.ids import RunId, SchemaHash

__all__ = ["Checkpoint", "Draft", "Store"]

TEMPORARY = ".tmp-"
TRAINER_FOLDER = ".trainer"
LOCK_FILE = ".lock"
NUMBER_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One whole checkpoint, as its manifest describes it."""

    path: Path
    manifest: Manifest

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.manifest.files)

    @property
    def model(self) -> Path:
        return self.path / MODEL_FILE

    @property
    def trainer(self) -> Path | None:
        """The trainer's part; None when it is missing."""
        listed = any(file.name == TRAINER_FILE for file in self.manifest.files)
        return self.path / TRAINER_FILE if listed else None

    def verify(self) -> None:
        """Read every file through. Raises `CheckpointError` naming the first that is not what was written."""
        for file in self.manifest.files:
            self.verify_file(file.name)

    def verify_file(self, name: str) -> None:
        """Read one file through, as `verify` does."""
        file = next(file for file in self.manifest.files if file.name == name)
        path = self.path / name
        try:
            found = disk.digest_of(path)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
        if found != file:
            raise CheckpointError(f"{path}: it is damaged: its SHA-256 is not the one in the manifest")


class Store:
    """The folder of one node's checkpoints."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep
        self._lock: int | None = None

    @property
    def trainer_folder(self) -> Path:
        """Where the trainer writes its part."""
        return self.folder / TRAINER_FOLDER

    def open(self) -> list[Path]:
        """Take the folder over, and remove (and return) what an earlier life of the node left half-written.

        Raises `ConfigError` when the folder cannot be used, or another node uses it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = disk.lock_folder(self.folder / LOCK_FILE)
            if self._lock is None:
                raise ConfigError(
                    f"checkpoints = {self.folder}: another node writes there; give each node a folder of its own"
                )
            abandoned = sorted(path for path in self.folder.iterdir() if path.name.startswith(TEMPORARY))
            for path in abandoned:
                disk.remove_folder(path)
            if self.trainer_folder.exists():
                disk.remove_folder(self.trainer_folder)
            self.trainer_folder.mkdir()
        except OSError as error:
            raise ConfigError(
                f"checkpoints = {self.folder}: cannot write there ({error.strerror or error}); "
                "choose another folder with --checkpoints"
            ) from None
        return abandoned

    def close(self) -> None:
        """Let another process have the folder; may be repeated."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def paths(self) -> list[Path]:
        """List the folders of all checkpoints, the newest first, whatever they hold."""
        try:
            named = [path for path in self.folder.iterdir() if path.name.isdecimal() and path.name.isascii()]
        except OSError:
            return []
        return sorted(named, key=lambda path: int(path.name), reverse=True)

    def usable(
        self, run_id: RunId, schema: SchemaHash | None, refused: Callable[[CheckpointError], None]
    ) -> Iterator[Checkpoint]:
        """Give the checkpoints that look whole and are of this run and model, the newest first.

        schema: None before it is known. `refused` is told of each that is passed over. Contents are not read yet.
        """
        for path in self.paths():
            try:
                checkpoint = _read(path)
                _check_ours(checkpoint, run_id, schema)
            except CheckpointError as error:
                refused(error)
                continue
            yield checkpoint

    def draft(self) -> Draft:
        """Begin to write a checkpoint. Raises `OSError`."""
        folder = self.folder / f"{TEMPORARY}{uuid.uuid4().hex}"
        folder.mkdir(mode=0o700)
        return Draft(self, folder)

    def publish(self, folder: Path) -> Path:
        """Give a finished draft its number. Raises `OSError`."""
        number = max((int(path.name) for path in self.paths()), default=0) + 1
        path = self.folder / f"{number:0{NUMBER_DIGITS}}"
        disk.rename(folder, path)
        disk.sync_folder(self.folder)
        return path

    def prune(self, run_id: RunId) -> list[Path]:
        """Remove (and return) this run's checkpoints beyond those to keep; another run's stay. Raises `OSError`.

        The newest that has the trainer's part is always among them, in the place of the oldest one where need be (and
        besides the newest of all): those after it may have been written while no script ran.
        """
        own: list[Path] = []
        surplus: list[Path] = []
        with_trainer: Path | None = None
        for path in self.paths():
            try:
                checkpoint = _read(path)
            except CheckpointError:  # damaged: no reason to remove a whole one before it
                surplus += [path] if len(own) >= self._keep else []
                continue
            if checkpoint.manifest.run_id == run_id:
                own.append(path)
                if checkpoint.trainer is not None and with_trainer is None:
                    with_trainer = path
        kept = own[: self._keep]
        if with_trainer is not None and with_trainer not in kept:
            kept = [*kept[: max(1, self._keep - 1)], with_trainer]
        surplus += [path for path in own if path not in kept]
        for path in surplus:
            # Renamed first: a crash in the middle leaves something to sweep up, not a checkpoint with holes.
            abandoned = self.folder / f"{TEMPORARY}{uuid.uuid4().hex}"
            disk.rename(path, abandoned)
            disk.remove_folder(abandoned)
        return surplus


class Draft:
    """A checkpoint while it is written: nobody takes it for one before `commit` has renamed it.

    Everything here blocks and may raise `OSError`; `discard` undoes it.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._files: list[StoredFile] = []

    def create(self, name: str) -> FileWriter:
        """Begin one of its files; hand what its `close` returns to `add`."""
        return FileWriter(self._folder / name)

    def add(self, file: StoredFile) -> None:
        """Have the manifest vouch for a file."""
        self._files.append(file)

    def take(self, source: Path, name: str) -> None:
        """Move a file that another process has written, and synced, to here."""
        target = self._folder / name
        disk.rename(source, target)
        self.add(disk.digest_of(target))

    def commit(self, manifest: Manifest) -> Checkpoint:
        """Write the manifest, sync, and rename the whole to its number."""
        whole = replace(manifest, files=tuple(self._files))
        writer = self.create(MANIFEST_FILE)
        try:
            writer.write([encode_manifest(whole)])
        except BaseException:
            writer.abandon()
            raise
        writer.close()
        disk.sync_folder(self._folder)
        return Checkpoint(self._store.publish(self._folder), whole)

    def discard(self) -> None:
        """Remove what was written; what cannot be removed now is removed at the next start."""
        with contextlib.suppress(OSError):  # the next start removes it
            disk.remove_folder(self._folder)


def _read(path: Path) -> Checkpoint:
    """Read a checkpoint's manifest and look whether its files are there, in their full size."""
    where = path / MANIFEST_FILE
    try:
        manifest = decode_manifest(_text_of(where))
    except OSError as error:
        raise CheckpointError(f"{where}: cannot be read: {error.strerror or error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    for file in manifest.files:
        try:
            size_bytes = (path / file.name).stat().st_size
        except OSError as error:
            raise CheckpointError(f"{path / file.name}: cannot be read: {error.strerror or error}") from None
        if size_bytes != file.size_bytes:
            raise CheckpointError(f"{path / file.name}: it is torn: {size_bytes} bytes of {file.size_bytes}")
    if not any(file.name == MODEL_FILE for file in manifest.files):
        raise CheckpointError(f"{where}: it lists no {MODEL_FILE}")
    return Checkpoint(path, manifest)


def _text_of(manifest: Path) -> bytes:
    with manifest.open("rb") as file:
        text = file.read(MAX_MANIFEST_BYTES + 1)
    if len(text) > MAX_MANIFEST_BYTES:
        raise CheckpointError(f"it is longer than the {MAX_MANIFEST_BYTES} bytes that are read")
    return text


def _check_ours(checkpoint: Checkpoint, run_id: RunId, schema: SchemaHash | None) -> None:
    manifest, where = checkpoint.manifest, checkpoint.path / MANIFEST_FILE
    if manifest.run_id != run_id:
        raise CheckpointError(f"{where}: it is of the run {manifest.run_id!r}, this is {run_id!r}")
    if schema is not None and manifest.schema != schema:
        raise CheckpointError(
            f"{where}: it is of another model (schema {manifest.schema.hex()[:12]}, this is {schema.hex()[:12]})"
        )

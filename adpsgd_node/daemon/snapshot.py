"""Write one checkpoint of a running node, beside its trainer and its event loop: neither waits for the disk.

First the trainer's part, at a step boundary; then the model, chunk by chunk out of the plane, each copied in the loop's
own thread and written in another one; last the manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from adpsgd_node.checkpoint.manifest import MAX_HINTS, MAX_TEXT_LENGTH, MODEL_FILE, TRAINER_FILE, Hint, Manifest
from adpsgd_node.checkpoint.plane_file import model_header, model_parts
from adpsgd_node.checkpoint.state_file import STATE_ERROR_FILE, STATE_FILE
from adpsgd_node.checkpoint.store import Checkpoint, Draft, Store
from adpsgd_node.core.membership.member import Member
from adpsgd_node.core.progress import Progress
from adpsgd_node.daemon.thread import in_thread
from adpsgd_node.daemon.training import Training
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.errors import CheckpointError
from adpsgd_node.ids import NodeId, RunId
from adpsgd_node.plane import Plane, TrainerState

__all__ = ["Snapshot", "Subject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The node that checkpoints are written of."""

    identity: Callable[[], NodeId]
    run_id: RunId
    training: Training
    progress: Callable[[], Progress]
    spoilt: Callable[[], str]
    """Why its model is not to be kept, as no node may go on from it; empty when it is."""
    peers: Callable[[], Sequence[Member]]
    """The live members but this node."""
    attached: Callable[[], bool]
    """Whether a trainer is there to write its part."""
    watch: Watch
    """Notified when the trainer has stepped, has written its part, or is gone."""


class Snapshot:
    """Writes checkpoints of one node, one at a time."""

    def __init__(self, subject: Subject, store: Store) -> None:
        self._of = subject
        self._store = store
        self._held: tuple[Plane, int] | None = None
        """Of which plane the trainer has written its part, and the number; until a checkpoint has taken it."""
        self._asked: tuple[Plane, int] | None = None
        """What it was asked for last, until it is known to be there."""

    async def write(self, reason: str, trainer_timeout_s: float) -> Checkpoint:
        """Write one checkpoint. Raises `CheckpointError`, or `OSError`; nothing is left of it then."""
        plane = self._of.training.plane
        if plane is None or not self._of.training.has_model:
            raise CheckpointError("this node has no model yet: there is nothing to keep")
        if why := self._of.spoilt():
            raise CheckpointError(f"{why}: what it holds is not to be gone on from")
        manifest = self._manifest(plane, reason)  # before the model, which then holds at least what this counts
        draft = await in_thread(self._store.draft)
        try:
            absent = await self._take_trainer_part(draft, plane, trainer_timeout_s)
            await self._write_model(draft, plane, manifest)
            whole = replace(manifest, trainer_absent=absent[:MAX_TEXT_LENGTH])
            return await in_thread(lambda: draft.commit(whole))
        except BaseException:
            await in_thread(draft.discard)
            raise

    async def ask_trainer(self, timeout_s: float) -> str:
        """Have the trainer write its part, for the checkpoint to come; return why it did not, or nothing.

        A request that is not carried out in time stands: its part is held for the next checkpoint, and nothing more is
        asked for, nor any file touched, while the trainer is at it.
        """
        plane = self._of.training.plane
        if plane is None:
            return "no script was running"
        header, idle = plane.header, self._saved(plane)
        if idle:
            self._notice(plane)
        if not self._of.attached():
            return "no script was running"
        if header.trainer_state not in (TrainerState.STEPPING, TrainerState.SETTLING):
            return "the script does not step"
        if idle:
            await in_thread(partial(_empty, self._store.trainer_folder, self._files_held()))
            header.save_state = header.state_saved + 1
        self._asked = (plane, header.save_state)
        await self._of.watch.until(
            lambda: self._saved(plane) or not self._of.attached() or self._of.training.plane is not plane, timeout_s
        )
        if self._saved(plane):
            self._notice(plane)
            return ""
        return f"the script wrote none within {timeout_s:g} s" if self._of.attached() else "the script ended"

    async def _take_trainer_part(self, draft: Draft, plane: Plane, timeout_s: float) -> str:
        """Take the trainer's part over, written now or, by one that is gone, before; return why there is none."""
        absent = await self.ask_trainer(timeout_s)
        held, self._held = self._held, None
        if held is None or held[0] is not plane:
            return absent
        written, why = _files(self._store.trainer_folder, held[1])
        return await in_thread(partial(_take, draft, written, why))

    def _saved(self, plane: Plane) -> bool:
        return plane.header.state_saved >= plane.header.save_state

    def _notice(self, plane: Plane) -> None:
        """Hold what the trainer has written since it was asked, be it long ago."""
        asked, self._asked = self._asked, None
        if asked is not None and asked[0] is plane:
            self._held = asked

    def _files_held(self) -> tuple[Path, ...]:
        return () if self._held is None else _files(self._store.trainer_folder, self._held[1])

    async def _write_model(self, draft: Draft, plane: Plane, manifest: Manifest) -> None:
        writer = await in_thread(lambda: draft.create(MODEL_FILE))
        try:
            await in_thread(lambda: writer.write([model_header(plane.layout, _metadata(manifest))]))
            for part in model_parts(plane):
                if self._of.training.plane is not plane or self._of.training.poison:
                    raise CheckpointError("this node gave its model up meanwhile: there is nothing to keep")
                await in_thread(partial(writer.write, part))
            draft.add(await in_thread(writer.close))
        finally:
            writer.abandon()

    def _manifest(self, plane: Plane, reason: str) -> Manifest:
        of, progress = self._of, self._of.progress()
        totals = progress.totals()
        step, samples = of.training.progress()
        return Manifest(
            run_id=of.run_id,
            node=of.identity(),
            schema=plane.layout.schema,
            step=step,
            samples=samples,
            run_steps=totals.steps,
            run_samples=totals.samples,
            progress=progress.entries(),
            members=tuple(Hint(member.name, member.address) for member in of.peers() if not member.outbound_only)[
                :MAX_HINTS
            ],
            reason=reason[:MAX_TEXT_LENGTH],
            written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _metadata(manifest: Manifest) -> dict[str, str]:
    """Say in the model file itself whose it is, as the model of a finished run does."""
    return {
        "format": "pt",
        "run": manifest.run_id,
        "schema": manifest.schema.hex(),
        "node": manifest.node.name,
        "steps": str(manifest.run_steps),
        "samples": str(manifest.run_samples),
        "version": version("adpsgd-node"),
    }


def _take(draft: Draft, written: Path, why: Path) -> str:
    if written.exists():
        draft.take(written, TRAINER_FILE)
        return ""
    try:
        return why.read_text(errors="replace")
    except OSError:
        return "the script wrote none, and not why"


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    """Name what the trainer writes for a number: its part, or why there is none."""
    return folder / STATE_FILE.format(number), folder / STATE_ERROR_FILE.format(number)


def _empty(folder: Path, but: Container[Path]) -> None:
    for path in folder.iterdir():
        if path not in but:
            path.unlink()

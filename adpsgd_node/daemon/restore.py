"""Choose the checkpoint a node may start from, and read it; refuse by name what cannot be used."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from adpsgd_node.checkpoint.plane_file import load_model
from adpsgd_node.checkpoint.store import Checkpoint, Store
from adpsgd_node.daemon.thread import in_thread
from adpsgd_node.errors import CheckpointError
from adpsgd_node.ids import RunId, SchemaHash
from adpsgd_node.plane import Plane
from adpsgd_node.telemetry.log import EventLog

__all__ = ["Restorer"]


class Restorer:
    """The checkpoints of this node that look whole, the newest first; contents are read only when one is needed."""

    def __init__(self, store: Store, run_id: RunId) -> None:
        self._store = store
        self._run_id = run_id
        self._candidates: list[Checkpoint] = []
        self._log = EventLog("checkpoint")

    def open(self) -> None:
        """Look through the folder."""
        self._candidates = list(self._store.usable(self._run_id, None, self._refuse))

    def written(self, checkpoint: Checkpoint, removed: list[Path]) -> None:
        """Take in a new checkpoint, and the removal of old ones."""
        self._candidates = [checkpoint, *(known for known in self._candidates if known.path not in removed)]

    def newest(self, schema: SchemaHash | None) -> Checkpoint | None:
        """Return the newest that has not been refused; None: no matter of which model."""
        return next((c for c in self._candidates if schema is None or c.manifest.schema == schema), None)

    def meet(self, schema: SchemaHash) -> None:
        """Learn which model this node trains: checkpoints of another are refused."""
        for checkpoint in list(self._candidates):
            if checkpoint.manifest.schema != schema:
                self._drop(checkpoint)
                there, here = checkpoint.manifest.schema.hex()[:12], schema.hex()[:12]
                self._refuse(
                    CheckpointError(f"{checkpoint.path}: it is of another model (schema {there}, this is {here})")
                )

    async def load(self, checkpoint: Checkpoint, plane: Plane) -> bool:
        """Verify a checkpoint to the last byte and read its model into `live`; False: refused, and said why."""

        def read() -> None:
            checkpoint.verify()
            load_model(checkpoint.model, plane.layout, plane.live)

        try:
            await in_thread(read)
        except CheckpointError as error:
            self._drop(checkpoint)
            self._refuse(error)
            return False
        return True

    async def trainer_part(self, schema: SchemaHash) -> Path | None:
        """Return the newest trainer's part that is as it was written; None: there is none."""
        for checkpoint in list(self._candidates):
            path = checkpoint.trainer
            if path is None or checkpoint.manifest.schema != schema:
                continue
            try:
                await in_thread(partial(checkpoint.verify_file, path.name))
            except CheckpointError as error:
                self._refuse(error)
                continue
            return path
        return None

    def _drop(self, checkpoint: Checkpoint) -> None:
        self._candidates = [known for known in self._candidates if known is not checkpoint]

    def _refuse(self, error: CheckpointError) -> None:
        self._log.warning("a checkpoint is not used", why=error)

"""Keep a node's checkpoints: write one now and then and on demand, and say which is the newest."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path

from adpsgd_node.checkpoint.manifest import MANIFEST_FILE
from adpsgd_node.checkpoint.store import Checkpoint, Store
from adpsgd_node.core.adoption import Standing
from adpsgd_node.daemon.restore import Restorer
from adpsgd_node.daemon.settings import CheckpointConfig
from adpsgd_node.daemon.snapshot import Snapshot, Subject
from adpsgd_node.daemon.thread import in_thread
from adpsgd_node.errors import CheckpointError
from adpsgd_node.telemetry.log import EventLog
from adpsgd_node.telemetry.metrics import Metrics

__all__ = ["Checkpointing"]

SHORTEST_INTERVAL_PART = 0.8
"""Checkpoints follow each other by this part of the interval or more, drawn each time: nodes that were started together
do not all write at once."""
SHORTEST_PAUSE_S = 0.1
SAVE_TIMEOUT_S = 600.0
"""Longest time a checkpoint may take that nobody waits for."""
TRAINER_TIMEOUT_S = 60.0
"""Longest wait for the trainer's next step; then the checkpoint goes without the trainer's part."""
TRAINER_TIMEOUT_PART = 0.5
"""Part of the time a checkpoint may take, or of the interval, that the trainer's part may take."""


class Checkpointing:
    """The checkpoints of one node. `restorer` reads them; this writes them."""

    def __init__(self, config: CheckpointConfig, folder: Path, subject: Subject, metrics: Metrics) -> None:
        self._config = config
        self._subject = subject
        self._metrics = metrics
        self._store = Store(config.checkpoints or folder / "checkpoints", config.checkpoint_keep)
        self._snapshot = Snapshot(subject, self._store)
        self._busy = asyncio.Lock()
        self._rng = random.Random(f"checkpoints/{subject.identity()}")
        self._log = EventLog("checkpoint")
        self._written_at: float | None = None
        self._kept: tuple[int, int] | None = None
        """The run's counters when the newest was written."""
        self.restorer = Restorer(self._store, subject.run_id)
        self.problem = ""
        """Why the last checkpoint could not be written; empty when it was."""

    def open(self, now: float) -> None:
        """Take the folder over and look what is there. Raises `ConfigError` when it cannot be used."""
        for path in self._store.open():
            self._log.info("removed a checkpoint that was only begun", path=path)
        self.restorer.open()
        newest = self.restorer.newest(None)
        if newest is not None:
            written = (newest.path / MANIFEST_FILE).stat().st_mtime
            self._written_at = now - max(0.0, time.time() - written)
            self._metrics.checkpoint_kept(size_bytes=newest.size_bytes, timestamp_s=written)
            manifest = newest.manifest
            self._log.info("has a checkpoint", path=newest.path, samples=manifest.run_samples, of=manifest.written_at)

    def close(self) -> None:
        """Let the folder go; may be repeated."""
        self._store.close()

    @property
    def trainer_folder(self) -> Path:
        """Where the trainer writes its part."""
        return self._store.trainer_folder

    def newest(self) -> Path | None:
        """Return the folder of the newest checkpoint."""
        newest = self.restorer.newest(None)
        return newest.path if newest else None

    def age_s(self, now: float) -> float:
        """Return how old it is; NaN when there is none. `now`: the loop's time."""
        return float("nan") if self._written_at is None else now - self._written_at

    def standing(self) -> Standing | None:
        """Say how far the run was in the checkpoint this node could go on from, if it has no live model."""
        plane = self._subject.training.plane
        newest = self.restorer.newest(plane.layout.schema if plane else None)
        return None if newest is None or self._subject.training.has_model else newest.manifest.standing

    async def run(self) -> None:
        """Write a checkpoint once in an interval, for as long as there is something new to keep."""
        interval_s, loop = self._config.checkpoint_interval_s, asyncio.get_running_loop()
        trainer_timeout_s = min(TRAINER_TIMEOUT_S, interval_s * TRAINER_TIMEOUT_PART)
        while interval_s:
            begun = loop.time()
            if self._has_news():
                with contextlib.suppress(CheckpointError):  # logged; training goes on, the next interval tries again
                    await self._save("interval", SAVE_TIMEOUT_S, trainer_timeout_s)
            due = begun + interval_s * self._rng.uniform(SHORTEST_INTERVAL_PART, 1.0)
            await asyncio.sleep(max(SHORTEST_PAUSE_S, due - loop.time()))

    async def save(self, reason: str, timeout_s: float) -> Path:
        """Write a checkpoint now, behind one that is being written. Raises `CheckpointError`."""
        checkpoint = await self._save(reason, timeout_s, min(TRAINER_TIMEOUT_S, timeout_s * TRAINER_TIMEOUT_PART))
        return checkpoint.path

    async def ask_trainer(self, timeout_s: float) -> None:
        """Have the trainer write its part for the next checkpoint, as it will be gone by then."""
        async with self._busy:
            try:
                why = await self._snapshot.ask_trainer(timeout_s)
            except OSError as error:
                why = error.strerror or str(error)
        if why:
            self._log.info("the next checkpoint goes without the newest state of the script", why=why)

    async def _save(self, reason: str, timeout_s: float, trainer_timeout_s: float) -> Checkpoint:
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(timeout_s), self._busy:
                checkpoint = await self._snapshot.write(reason, trainer_timeout_s)
                await self._written(checkpoint, begun)
        except CheckpointError as error:  # there is nothing to keep
            self._log.warning("wrote no checkpoint", why=error)
            raise
        except TimeoutError:
            raise self._failed(f"it was not done within {timeout_s:g} s") from None
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from None
        return checkpoint

    async def _written(self, checkpoint: Checkpoint, begun: float) -> None:
        manifest, now = checkpoint.manifest, asyncio.get_running_loop().time()
        self.problem, self._written_at = "", now
        self._kept = (manifest.run_steps, manifest.run_samples)
        self._metrics.checkpoint_written(seconds=now - begun)
        self._metrics.checkpoint_kept(size_bytes=checkpoint.size_bytes, timestamp_s=time.time())
        removed: list[Path] = []
        try:
            removed = await in_thread(lambda: self._store.prune(self._subject.run_id))
        except OSError as error:
            self._log.warning("could not remove old checkpoints", cause=error)
        self.restorer.written(checkpoint, removed)
        absent = {"without_trainer": manifest.trainer_absent} if manifest.trainer_absent else {}
        self._log.info(
            "wrote a checkpoint", path=checkpoint.path, reason=manifest.reason, seconds=now - begun, **absent
        )

    def _failed(self, why: str) -> CheckpointError:
        """Note that a checkpoint could not be written; those before it stay."""
        self.problem = (
            f"cannot write a checkpoint to {self._store.folder}: {why}; "
            "those before it stay: free some space, or choose another folder with --checkpoints"
        )
        self._metrics.checkpoint_failed()
        self._log.error(self.problem)
        return CheckpointError(self.problem)

    def _has_news(self) -> bool:
        subject = self._subject
        if not subject.training.has_model or subject.spoilt():
            return False
        totals = subject.progress().totals()
        return self._kept != (totals.steps, totals.samples)

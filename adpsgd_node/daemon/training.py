"""Follow the trainer through the plane's header: its plane, its steps, its losses, the target."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

import numpy as np

from adpsgd_node.core.tensor import TensorSpec
from adpsgd_node.daemon.settings import TargetConfig
from adpsgd_node.errors import ConfigError, SchemaMismatchError
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.plane.header import STEP_SECONDS_ENTRIES, Command
from adpsgd_node.plane.layout import describe_difference

__all__ = ["News", "Training"]

RATE_HALF_LIFE_S = 3.0
RECOVERY_CHECK_S = 1.0
"""Pause after a look at a poisoned node's parameters or loss found them not finite."""
CHUNKS_PER_CHECK = 16
"""Chunks looked at after one step, to see whether a poisoned node's parameters are finite again."""


@dataclass(frozen=True, slots=True)
class News:
    """What the trainer has done since the last look."""

    steps: int
    step_seconds: tuple[float, ...]
    """Of at most the last 1,024 of them."""


class Training:
    """The trainer's side of one node, as the daemon sees it."""

    def __init__(self, target: TargetConfig, chunk_bytes: int) -> None:
        self.plane: Plane | None = None
        self.has_model = False
        """The plane holds the run's parameters."""
        self.poison = ""
        """Why this node's parameters or loss must not reach others; empty when all is well."""
        self.samples_per_s = 0.0
        self._target = target
        self._chunk_bytes = chunk_bytes
        self._dataset_size = 0
        self._seen_step = 0
        self._seen_samples = 0
        self._base = (0, 0)
        self._frozen: tuple[int, int] | None = None
        self._rate_at = 0.0
        self._check_after = 0.0
        self._checked = 0  # chunks found finite since the last one that was not

    def attach(self, tensors: tuple[TensorSpec, ...], dataset_size: int) -> tuple[Plane, bool]:
        """Give the plane for a trainer's model, and whether it holds what an earlier trainer left.

        Raises `SchemaMismatchError` when a restarted script announces another model than before, and `ConfigError` when
        the target is in epochs and the script does not say how long one is.
        """
        if self._target.epochs is not None and not dataset_size:
            raise ConfigError(
                f"epochs = {self._target.epochs:g} is given, but the script does not say how long one is: "
                "pass dataset_size=len(data) to adpsgd_node.join(), or give --samples"
            )
        layout = Layout.build(tensors, self._chunk_bytes)
        if self.plane is not None and self.has_model:
            if layout.schema != self.plane.layout.schema:
                ours = [placement.spec for placement in self.plane.layout.placements]
                raise SchemaMismatchError(
                    f"the restarted script's model differs from the one this node holds: "
                    f"{describe_difference(tensors, ours)}; restart the node to train another model"
                )
            return self.plane, True
        self._retire()
        self.plane = Plane.create(layout)
        self._dataset_size = dataset_size
        self.plane.header.target_samples = self.target_samples
        return self.plane, False

    @property
    def target_samples(self) -> int:
        """Samples of all nodes after which the run stops; 0: no target."""
        if self._target.samples is not None:
            return self._target.samples
        if self._target.epochs is not None and self._dataset_size:
            return math.ceil(self._target.epochs * self._dataset_size)
        return 0

    def progress(self) -> tuple[int, int]:
        """Return the steps and samples of this boot; they stand still while the node is poisoned."""
        if self._frozen is not None:
            return self._frozen
        if self.plane is None:
            return self._base
        header = self.plane.header
        return self._base[0] + header.step, self._base[1] + header.samples

    def look(self, now: float) -> News:
        """Read what the trainer has published since the last call."""
        if self.plane is None:
            return News(0, ())
        header = self.plane.header
        step, samples = header.step, header.samples
        steps = max(0, step - self._seen_step)
        ring = range(step - min(steps, STEP_SECONDS_ENTRIES) + 1, step + 1)
        seconds = tuple(float(header.step_seconds[index % STEP_SECONDS_ENTRIES]) for index in ring)
        self._rate(now, samples - self._seen_samples)
        self._seen_step, self._seen_samples = step, samples
        if header.non_finite and not self.poison:
            self.poisoned(f"its loss is not finite since step {step}")
        return News(steps, seconds)

    def poisoned(self, why: str) -> None:
        """Note that what this node holds must not reach others."""
        if not self.poison:
            self._frozen = self.progress()
            self.poison = why

    def recovered(self, now: float) -> bool:
        """Tell (and note) whether a poisoned node's loss and parameters are finite again."""
        plane = self.plane
        if not self.poison or plane is None or now < self._check_after:
            return False
        chunks = range(self._checked, min(self._checked + CHUNKS_PER_CHECK, len(plane.layout.chunks)))
        if plane.header.non_finite or not self._finite(plane, chunks):
            self._checked, self._check_after = 0, now + RECOVERY_CHECK_S
            return False
        self._checked = chunks.stop
        if self._checked < len(plane.layout.chunks):
            return False  # the rest at the next steps: the loop has more to do than this
        self._checked, self.poison, self._frozen = 0, "", None
        return True

    async def finite(self) -> bool:
        """Look through the whole view for values that are not finite, in parts: the loop has more to do."""
        plane = self.plane
        chunks = 0 if plane is None else len(plane.layout.chunks)
        for start in range(0, chunks, CHUNKS_PER_CHECK):
            if plane is None or plane is not self.plane:
                return True  # it was given up meanwhile
            if not self._finite(plane, range(start, min(start + CHUNKS_PER_CHECK, chunks))):
                return False
            await asyncio.sleep(0)  # lets others have their turn
        return True

    @staticmethod
    def _finite(plane: Plane, chunks: range) -> bool:
        scratch = np.empty(max(stop - start for start, stop in plane.layout.chunks), np.float32)
        return all(np.isfinite(plane.read_view(chunk, scratch)).all() for chunk in chunks)

    def command(self, command: Command) -> None:
        """Tell the trainer to go on or to stop; it looks at each step."""
        if self.plane is not None:
            self.plane.header.command = command

    def mixed(self, step: int) -> None:
        """Tell the trainer that what it waits for after `step` has been done; `TrainerLink.wake` has it look."""
        if self.plane is not None:
            self.plane.header.mixed = step

    @property
    def behind(self) -> int:
        """The step whose round the trainer waits for; 0: none."""
        header = None if self.plane is None else self.plane.header
        return header.step if header is not None and header.mixed < header.step else 0

    def publish(self, steps: int, samples: int) -> None:
        """Show the trainer the run's counters."""
        if self.plane is not None:
            self.plane.header.global_steps = steps
            self.plane.header.global_samples = samples

    def discard(self) -> None:
        """Drop a poisoned plane after its trainer has ended: the next one adopts a peer's model."""
        self._retire()
        self.poison = ""

    def _retire(self) -> None:
        """Keep the counters of a plane that is given up."""
        self._base, self._frozen = self.progress(), None
        self._seen_step = self._seen_samples = 0
        self.has_model = False
        if self.plane is not None:
            self.plane.close()
            self.plane = None

    def _rate(self, now: float, samples: int) -> None:
        elapsed = now - self._rate_at
        if elapsed <= 0 or samples < 0:
            return
        weight = 0.5 ** (elapsed / RATE_HALF_LIFE_S)
        self.samples_per_s = self.samples_per_s * weight + samples / elapsed * (1 - weight)
        self._rate_at = now

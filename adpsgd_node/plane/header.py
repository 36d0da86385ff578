"""The plane's header: small fields at fixed offsets, each with one writer.

The trainer's fields and the daemon's lie in cache lines of their own, so that neither slows the other down.
Every field is one aligned machine word: a reader in the other process sees the old or the new value, nothing between.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["HEADER_BYTES", "STEP_SECONDS_ENTRIES", "Command", "Header", "TrainerState"]

HEADER_BYTES = 8192
STEP_SECONDS_ENTRIES = 1024
"""Length of the ring of step times; the entry of step s is s % 1024."""

_TRAINER = 256
_DAEMON = 1024
_RING = 4096


class TrainerState(enum.IntEnum):
    NONE = 0
    STEPPING = 1
    SETTLING = 2
    FINISHED = 3


class Command(enum.IntEnum):
    RUN = 0
    STOP = 1


V = TypeVar("V", int, float, TrainerState, Command)


class _Field(Generic[V]):
    """One word of the header, read and written as a Python value."""

    def __init__(self, offset: int, stored: type[np.generic], value: type[V]) -> None:
        self._slot = (offset, offset + 8)
        self._stored = stored
        self._value: Callable[[Any], V] = value

    def __get__(self, header: Header, owner: type[Any] | None = None) -> V:
        return self._value(header.words(self._slot, self._stored)[0].item())

    def __set__(self, header: Header, value: V) -> None:
        header.words(self._slot, self._stored)[0] = value


class Header:
    """Read and write the fields of a mapped header; `memory` is at least `HEADER_BYTES` of uint8."""

    trainer_pid = _Field(_TRAINER, np.uint64, int)
    trainer_state = _Field(_TRAINER + 8, np.uint64, TrainerState)
    step = _Field(_TRAINER + 16, np.uint64, int)
    samples = _Field(_TRAINER + 24, np.uint64, int)
    loss = _Field(_TRAINER + 32, np.float64, float)
    """Last logged loss; NaN until there is one."""
    accuracy = _Field(_TRAINER + 40, np.float64, float)
    """Last logged accuracy; NaN until there is one."""
    non_finite = _Field(_TRAINER + 48, np.uint64, int)
    """1 when the last logged loss was not finite."""
    fold_commit = _Field(_TRAINER + 56, np.uint64, int)
    """First element of the block whose fold stands in the redo log, plus 1; 0: the log is empty."""

    state_saved = _Field(_TRAINER + 64, np.uint64, int)
    """Number of the last `save_state` that the trainer has carried out, or failed at."""

    waiting = _Field(_TRAINER + 72, np.uint64, int)
    """1 while the trainer waits for those of other nodes (allreduce)."""

    momentum = _Field(_TRAINER + 80, np.float64, float)
    nesterov = _Field(_TRAINER + 88, np.uint64, int)
    """Momentum that parameter servers are to apply to this trainer's steps, and whether it is Nesterov's (A-PSGD)."""

    command = _Field(_DAEMON, np.uint64, Command)
    global_steps = _Field(_DAEMON + 8, np.uint64, int)
    global_samples = _Field(_DAEMON + 16, np.uint64, int)
    target_samples = _Field(_DAEMON + 24, np.uint64, int)
    """Samples of all nodes together after which the run stops; 0: no target."""
    exchanges = _Field(_DAEMON + 32, np.uint64, int)
    save_state = _Field(_DAEMON + 40, np.uint64, int)
    """Raised to have the trainer write its part of a checkpoint at its next step boundary."""

    mixed = _Field(_DAEMON + 48, np.uint64, int)
    """Steps after which the daemon has done what the algorithm makes the next one wait for; AD-PSGD never waits."""

    mixing_rate = _Field(_DAEMON + 56, np.float64, float)
    momentum_share = _Field(_DAEMON + 64, np.float64, float)
    """Constants of A2CiD2 (`core.topology.acceleration.Constants`); a share of 0: without acceleration."""
    rate_scale = _Field(_DAEMON + 72, np.float64, float)
    """What learning rates are multiplied by (`core.rate_correction`); 0 and 1: nothing."""
    exchanges_per_unit = _Field(_DAEMON + 80, np.float64, float)
    """Exchanges of this node in the unit of time of `mixing_rate`; 0: no time passes."""

    def __init__(self, memory: npt.NDArray[np.uint8]) -> None:
        self._memory = memory[:HEADER_BYTES]
        self._words: dict[tuple[int, int], npt.NDArray[Any]] = {}
        self.step_seconds: npt.NDArray[np.float32] = self._memory[_RING : _RING + 4 * STEP_SECONDS_ENTRIES].view(
            np.float32
        )
        """Wall time of the trainer's last steps, in seconds; written by the trainer."""

    def words(self, slot: tuple[int, int], stored: type[np.generic]) -> npt.NDArray[Any]:
        """Give the one-word array of a field."""
        found = self._words.get(slot)
        if found is None:
            found = self._words[slot] = self._memory[slot[0] : slot[1]].view(stored)
        return found

    def reset(self) -> None:
        """Set what a fresh plane's zero bytes would not say: no loss and no accuracy yet."""
        self.loss = float("nan")
        self.accuracy = float("nan")

"""Save and restore the trainer's part of a checkpoint: optimizers and random numbers, at a step boundary.

The daemon raises `save_state` in the plane's header; the trainer sees it after its next step, copies the state to the
CPU, and goes on. A thread writes the copy, and the header tells the daemon when it is done. What is read back is read
without trust: tensors and plain values, never code.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adpsgd_node.checkpoint.disk import sync_folder
from adpsgd_node.checkpoint.state_file import STATE_ERROR_FILE, STATE_FILE
from adpsgd_node.errors import TrainerError
from adpsgd_node.plane.header import Header

__all__ = ["STATE_VERSION", "StateSaver", "capture", "restore"]

STATE_VERSION = 1
"""Of the trainer's part; one that is later is not read."""

MAX_DEPTH = 32
"""Deepest nesting of an optimizer's state."""

_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, type(None))
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, TypeError, KeyError, IndexError, pickle.UnpicklingError)
"""What `torch.load` and the loading of a state raise for a file that is not what it should be."""


class StateSaver:
    """Writes the trainer's part whenever the daemon asks; one at a time."""

    def __init__(
        self, folder: str, header: Header, optimizers: Sequence[torch.optim.Optimizer], step_event: int
    ) -> None:
        self._folder = Path(folder) if folder else None
        self._header = header
        self._optimizers = optimizers
        self._served = header.state_saved
        self._writing: threading.Thread | None = None
        self._lock = threading.Lock()
        self._step_event = step_event

    def after_step(self) -> None:
        """Look whether the state is asked for: one comparison a step."""
        if self._header.save_state > self._served:
            self._save(self._header.save_state)

    def close(self) -> None:
        """Tell the daemon no more; a file under way is still written."""
        with self._lock:
            self._step_event = -1

    def _save(self, number: int) -> None:
        if self._writing is not None and self._writing.is_alive():
            return  # looked at again after the next step
        self._served = number
        if self._folder is None:
            self._tell(number)
            return
        try:
            state: dict[str, Any] | str = capture(self._optimizers)
        except (TrainerError, RuntimeError, MemoryError) as error:
            state = f"the state of the optimizers could not be copied: {error}"
        # No daemon thread: a script that ends meanwhile waits for the file.
        self._writing = threading.Thread(
            target=self._write, args=(self._folder, number, state), name="adpsgd-node state", daemon=False
        )
        self._writing.start()

    def _write(self, folder: Path, number: int, state: dict[str, Any] | str) -> None:
        try:
            if isinstance(state, str):
                _write_error(folder, number, state)
            else:
                _write_state(folder, number, state)
        finally:
            self._tell(number)

    def _tell(self, number: int) -> None:
        self._header.state_saved = number
        with self._lock:
            if self._step_event >= 0:
                os.eventfd_write(self._step_event, 1)


def capture(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """Copy what training goes on from: the optimizers' states and every generator of random numbers.

    Raises `TrainerError` naming what cannot be stored without pickled code.
    """
    return {
        "version": STATE_VERSION,
        "optimizers": [
            {
                "kind": type(optimizer).__qualname__,
                "shapes": _shapes(optimizer),
                "state": _copied(optimizer.state_dict(), type(optimizer).__name__, 0),
            }
            for optimizer in optimizers
        ],
        "random": _random_states(),
    }


def restore(path: str, optimizers: Sequence[torch.optim.Optimizer]) -> bool:
    """Load a state into the optimizers; one that does not fit changes nothing, and a warning says why."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        _check(stored, optimizers)
        for optimizer, entry in zip(optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(entry["state"])
        _set_random_states(stored["random"])
    except (TrainerError, *_UNREADABLE) as error:
        reason = str(error).partition("\n")[0]
        warnings.warn(
            f"goes on without the optimizer state of the checkpoint: {path}: {reason}", RuntimeWarning, stacklevel=2
        )
        return False
    return True


def _check(stored: Any, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Raises `TrainerError` naming the first difference."""
    if not isinstance(stored, dict) or stored.get("version") != STATE_VERSION:
        raise TrainerError(f"it is no state of version {STATE_VERSION}: another version of adpsgd-node wrote it")
    entries = stored["optimizers"]
    if len(entries) != len(optimizers):
        raise TrainerError(f"it is of {len(entries)} optimizers, the script has {len(optimizers)}")
    for optimizer, entry in zip(optimizers, entries, strict=True):
        kind = type(optimizer).__qualname__
        if entry["kind"] != kind:
            raise TrainerError(f"it is of {entry['kind']}, the script's optimizer is {kind}")
        if entry["shapes"] != _shapes(optimizer):
            raise TrainerError(f"the script gives {kind} other parameters, or groups them otherwise")


def _shapes(optimizer: torch.optim.Optimizer) -> list[list[list[int]]]:
    """Give, group by group, the shapes of the parameters: what a state belongs to."""
    return [[list(parameter.shape) for parameter in group["params"]] for group in optimizer.param_groups]


def _copied(value: Any, where: str, depth: int) -> Any:
    """Copy nested containers with their tensors, those on a device to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, _PLAIN):
        return value
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {key: _copied(entry, f"{where}[{key!r}]", depth + 1) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            copies = [_copied(entry, where, depth + 1) for entry in value]
            return copies if isinstance(value, list) else tuple(copies)
    raise TrainerError(f"{where} is a {type(value).__name__}: only tensors and plain values are stored")


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    numpy_state = np.random.get_state()
    if isinstance(numpy_state, tuple) and numpy_state[0] == "MT19937":
        _, keys, *rest = numpy_state
        states["numpy"] = [torch.from_numpy(np.asarray(keys, np.int64)), *rest]
    return states


def _set_random_states(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    if "cuda" in states and torch.cuda.is_available() and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    if "numpy" in states:
        keys, *rest = states["numpy"]
        np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))


def _write_state(folder: Path, number: int, state: dict[str, Any]) -> None:
    path = folder / STATE_FILE.format(number)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError when the disk is full
        with contextlib.suppress(OSError):  # the failure that led here is the one to tell
            temporary.unlink(missing_ok=True)
        _write_error(folder, number, f"the state of the optimizers could not be written: {error}")


def _write_error(folder: Path, number: int, why: str) -> None:
    with contextlib.suppress(OSError):  # the daemon says then that it does not know why
        (folder / STATE_ERROR_FILE.format(number)).write_text(why)

"""Sum up what one life of a node took from each other life: the deltas applied and those taken back, in float64.

What i took from j must be the exact negative of what j took from i (invariant 1), over whatever both went through. The
sums of a real process lie in files mapped into its memory, so they outlive any kill.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adpsgd_node.ids import NodeId

__all__ = ["FileLedger", "Ledger", "pair_drift", "read_ledgers", "total_drift"]

Vector = NDArray[np.float64]

LIFE_FILE = "life.json"
PEERS_FILE = "peers.txt"
"""Names the rows of the file of sums, one a line, behind the number of elements in a row."""
SUMS_FILE = "sums.f64"
RECEIVED = "(all)"
MAX_PEERS = 1024
"""Lives of peers that one life may meet."""


class Ledger:
    """The sums of one life, in its own memory."""

    def __init__(self) -> None:
        self.taken: dict[NodeId, Vector] = {}
        """By peer life: the sum of the deltas of all exchanges with it."""
        self.received: Vector | None = None
        """Everything that the inbox was given, whoever it came from."""

    def begin(self, elements: int) -> None:
        """Forget all: a new plane holds nothing yet."""
        self.taken = {}
        self.received = self.room(RECEIVED, elements)

    def add(self, peer: NodeId, start: int, delta: NDArray[np.float32]) -> None:
        """Count one delta of a chunk that begins at element `start`."""
        assert self.received is not None, "a delta came before there was a plane"
        if peer not in self.taken:
            assert len(self.taken) < MAX_PEERS, "one life meets too many others: raise MAX_PEERS"
            self.taken[peer] = self.room(f"{peer.name}@{peer.boot}", len(self.received))
        self.taken[peer][start : start + len(delta)] += delta
        self.received[start : start + len(delta)] += delta

    def unattributed(self) -> float:
        """Return |received - sum of taken|: 0 but for float64 rounding, if each delta was of some exchange."""
        if self.received is None:
            return 0.0
        return float(np.linalg.norm(self.received - sum(self.taken.values(), np.zeros_like(self.received))))

    def room(self, name: str, elements: int) -> Vector:
        return np.zeros(elements, np.float64)


class FileLedger(Ledger):
    """The sums of one life, in one file of a folder: a sparse one, with its room made before any disk can be full."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._sums: Vector
        self._used = 0
        folder.mkdir(parents=True, exist_ok=True)

    def name(self, identity: NodeId) -> None:
        """Note whose life it is."""
        text = json.dumps({"name": identity.name, "boot": identity.boot, "pid": os.getpid()})
        partial = self._folder / f"{LIFE_FILE}.partial"
        partial.write_text(text)
        partial.rename(self._folder / LIFE_FILE)

    def begin(self, elements: int) -> None:
        self._used = 0
        (self._folder / PEERS_FILE).unlink(missing_ok=True)
        path = self._folder / SUMS_FILE
        path.unlink(missing_ok=True)
        self._sums = np.memmap(path, np.float64, "w+", shape=(MAX_PEERS + 1, elements))
        super().begin(elements)

    def room(self, name: str, elements: int) -> Vector:
        with (self._folder / PEERS_FILE).open("a") as file:
            file.write(f"{elements} {name}\n")
        self._used += 1
        row: Vector = self._sums[self._used - 1]
        return row


def identity_in(folder: Path) -> NodeId | None:
    """Read whose life a folder holds; None while it has no name yet."""
    try:
        life: dict[str, Any] = json.loads((folder / LIFE_FILE).read_text())
    except FileNotFoundError:
        return None
    return NodeId(life["name"], life["boot"])


def read_ledgers(folders: list[Path]) -> dict[NodeId, Ledger]:
    """Read what these lives left, as it stood when they ended or now."""
    found: dict[NodeId, Ledger] = {}
    for folder in folders:
        identity = identity_in(folder)
        if identity is not None and (folder / PEERS_FILE).exists() and (folder / SUMS_FILE).exists():
            found[identity] = _read(folder)
    return found


def _read(folder: Path) -> Ledger:
    ledger = Ledger()
    for row, line in enumerate((folder / PEERS_FILE).read_text().splitlines()):
        elements, _, name = line.partition(" ")
        sums = np.fromfile(folder / SUMS_FILE, np.float64, int(elements), offset=8 * row * int(elements))
        if name == RECEIVED:
            ledger.received = sums
        else:
            peer, _, boot = name.rpartition("@")
            ledger.taken[NodeId(peer, int(boot))] = sums
    return ledger


def pair_drift(
    ledgers: Mapping[NodeId, Ledger], norm: float, open_pairs: Collection[frozenset[NodeId]] = ()
) -> tuple[float, str]:
    """Return the largest |taken by i from j + taken by j from i| / norm of any two lives, and which they are.

    open_pairs: those left out, as they had no time to settle what broke between them.
    """
    widest, where = 0.0, ""
    for one, other in itertools.combinations(sorted(ledgers, key=str), 2):
        mine, theirs = ledgers[one].taken.get(other), ledgers[other].taken.get(one)
        if (mine is None and theirs is None) or frozenset((one, other)) in open_pairs:
            continue
        apart = (0.0 if mine is None else mine) + (0.0 if theirs is None else theirs)
        drift = _relative(float(np.linalg.norm(apart)), norm)
        if drift > widest:
            widest, where = drift, f"{one} and {other}"
    return widest, where


def total_drift(ledgers: Mapping[NodeId, Ledger], norm: float) -> float:
    """Return by how much these lives together gained or lost beyond what they exchanged with others, relative to norm.

    The sum of all that they received must be what came from lives that are gone.
    """
    received = [ledger.received for ledger in ledgers.values() if ledger.received is not None]
    foreign = [sums for one in ledgers.values() for peer, sums in one.taken.items() if peer not in ledgers]
    if not received:
        return 0.0
    zero = np.zeros_like(received[0])
    return _relative(float(np.linalg.norm(sum(received, zero) - sum(foreign, zero))), norm)


def _relative(size: float, norm: float) -> float:
    return size / norm if norm > 0 else (math.inf if size else 0.0)

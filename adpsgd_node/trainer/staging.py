"""Move chunks between a device and the plane in the background, and keep `live` and `folded` of a chunk matching.

A chunk's way round, each step started by one hook and found complete by a later one:

    changed --fetch--> staged --apply--> applied --publish--> published (folded)

`fetch` copies the chunk's `inbox` and `folded` to a slot on the device; `apply` adds their difference to the master;
`publish` copies the master to the hidden face of `live`, and the staged `inbox` to the hidden face of `folded`, then
turns both faces with one byte store. While a publish is under way nothing is applied, so the `live` that it copies
contains exactly the `folded` that it copies. The optimizer may step meanwhile: an element is then of this step or the
next, which changes no sum that exchanges keep.

A chunk that the daemon is rebasing goes the same way with the rest of its old `inbox`, which nobody writes any more.
Zeros are published as its `folded` then, and the same byte store turns it to the new `inbox`, to be fetched next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from adpsgd_node.plane import Plane
from adpsgd_node.plane.layout import ELEMENT_BYTES
from adpsgd_node.plane.plane import FOLDED_FACE, INBOX_FACE, LIVE_FACE
from adpsgd_node.trainer.copy_engine import Copy, CopyEngine, Ticket

__all__ = ["MAX_STAGING_BYTES", "Applied", "Staging"]

MAX_STAGING_BYTES = 256 << 20
"""Device memory for chunks under way; what does not fit waits for the next step."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A difference to be added to the model: elements [start, stop) of the plane."""

    start: int
    stop: int
    delta: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Staged:
    """One chunk in one slot."""

    chunk: int
    version: np.uint64
    """Of `inbox`, read before the copy began."""
    slot: int
    inbox: torch.Tensor
    folded: torch.Tensor
    rebasing: bool
    """`inbox` is the rest of the old one: publishing turns the chunk to the new one."""


@dataclass(frozen=True, slots=True)
class _Batch:
    ticket: Ticket
    staged: tuple[_Staged, ...]


class Staging:
    """The chunks of one plane and one fp32 master vector on a device."""

    def __init__(
        self, plane: Plane, master: torch.Tensor, engine: CopyEngine, max_bytes: int = MAX_STAGING_BYTES
    ) -> None:
        self._plane = plane
        self._master = master
        self._engine = engine
        self._live = [torch.from_numpy(face) for face in plane.live_faces]
        self._folded = [torch.from_numpy(face) for face in plane.folded_faces]
        self._inbox = [torch.from_numpy(face) for face in plane.inbox_faces]
        longest = max(stop - start for start, stop in plane.layout.chunks)
        count = min(len(plane.layout.chunks), max(1, max_bytes // (2 * longest * ELEMENT_BYTES)))
        self._slots = torch.zeros((count, 2, longest), dtype=torch.float32, device=master.device)
        self._free = list(range(count))
        self._fetching: _Batch | None = None
        self._applied: tuple[_Staged, ...] = ()
        self._publishing: _Batch | None = None
        self._next_chunk = 0

    def ready(self) -> bool:
        """Tell whether changed chunks have arrived on the device and may be applied now."""
        self._finish_publish()
        return self._publishing is None and self._fetching is not None and self._fetching.ticket.done()

    def apply(self) -> list[Applied]:
        """Add what has arrived on the device to the master (only when `ready`); give what was added."""
        batch = self._fetching
        assert batch is not None, "nothing was fetched"
        assert self._publishing is None, "live and folded being published would no longer match"
        self._fetching = None
        self._applied += batch.staged
        deltas = torch._foreach_sub([one.inbox for one in batch.staged], [one.folded for one in batch.staged])
        spans = [self._plane.layout.chunks[one.chunk] for one in batch.staged]
        torch._foreach_add_([self._master[start:stop] for start, stop in spans], deltas)
        for one in batch.staged:
            if one.rebasing:
                one.inbox.zero_()  # what is published as `folded`: nothing of the new inbox yet
        return [Applied(start, stop, delta) for (start, stop), delta in zip(spans, deltas, strict=True)]

    def publish(self) -> None:
        """Start to copy the master to the plane, unless the last such copy is still under way."""
        self._finish_publish()
        if self._publishing is not None:
            return
        if self._fetching is not None and self._fetching.ticket.done():
            return  # the next step applies it, which no publishing may overlap: publishing on and on would starve it
        copies = [*self._live_copies(), *(self._folded_copy(one) for one in self._applied)]
        self._publishing = _Batch(self._engine.to_host(copies), self._applied)
        self._applied = ()
        self._finish_publish()  # copies on the host are complete already

    def fetch(self) -> None:
        """Start to copy changed chunks to the device, unless the last such copy has not been applied yet."""
        if self._fetching is not None:
            return
        staged = tuple(self._stage(chunk) for chunk in self._changed())
        if not staged:
            return
        copies: list[Copy] = []
        for one in staged:
            start, stop = self._plane.layout.chunks[one.chunk]
            copies.append((one.inbox, self._inbox[self._face(one.chunk, INBOX_FACE)][start:stop]))
            copies.append((one.folded, self._folded[self._face(one.chunk, FOLDED_FACE)][start:stop]))
        self._fetching = _Batch(self._engine.to_device(copies), staged)

    def arrive(self) -> bool:
        """Have changed chunks come to the device, waiting for them; False when nothing has changed."""
        self._wait_publish()
        self.fetch()
        if self._fetching is None and not self._free:  # all slots hold what is applied and not published
            self.publish()
            self._wait_publish()
            self.fetch()
        if self._fetching is None:
            return False
        self._fetching.ticket.wait()
        return True

    def flush(self) -> None:
        """Publish the present master, waiting for it; what was fetched but not applied is left for `Fold`."""
        if self._fetching is not None:
            self._fetching.ticket.wait()
            self._free.extend(one.slot for one in self._fetching.staged)
            self._fetching = None
        self._wait_publish()  # it began before the last step
        self.publish()
        self._wait_publish()

    def load(self) -> None:
        """Set the master to `live`, waiting for it; all chunks show its first face then."""
        assert not (self._plane.faces & LIVE_FACE).any(), "recover() first: a chunk shows its second face"
        self._engine.to_device([(self._master, self._live[0])]).wait()

    def _finish_publish(self) -> None:
        """Turn the faces of a publish that has arrived."""
        batch = self._publishing
        if batch is None or not batch.ticket.done():
            return
        self._publishing = None
        turned = self._plane.faces ^ LIVE_FACE
        for one in batch.staged:
            turned[one.chunk] ^= FOLDED_FACE | INBOX_FACE if one.rebasing else FOLDED_FACE
        # Byte by byte is what matters: `live` and `folded` of one chunk turn together, chunks in any order.
        self._plane.faces[:] = turned
        for one in batch.staged:
            if not one.rebasing:  # or the new inbox, which that version tells of, would not be fetched
                self._plane.folded_version[one.chunk] = one.version
        self._free.extend(one.slot for one in batch.staged)

    def _wait_publish(self) -> None:
        if self._publishing is not None:
            self._publishing.ticket.wait()
            self._finish_publish()

    def _changed(self) -> list[int]:
        """Choose chunks whose `inbox` moved and whose `folded` is not about to: as many as fit, each in its turn."""
        plane = self._plane
        changed = plane.version != plane.folded_version
        for one in (*self._applied, *(self._publishing.staged if self._publishing else ())):
            changed[one.chunk] = False
        found = np.flatnonzero(changed)
        turn = int(np.searchsorted(found, self._next_chunk))
        ordered = np.concatenate([found[turn:], found[:turn]])[: len(self._free)]
        if len(ordered):
            self._next_chunk = (int(ordered[-1]) + 1) % len(changed)
        return [int(chunk) for chunk in ordered]

    def _stage(self, chunk: int) -> _Staged:
        start, stop = self._plane.layout.chunks[chunk]
        version = self._plane.version[chunk]
        slot = self._free.pop()
        inbox, folded = self._slots[slot, 0, : stop - start], self._slots[slot, 1, : stop - start]
        return _Staged(chunk, version, slot, inbox, folded, self._plane.rebasing(chunk))

    def _live_copies(self) -> Iterable[Copy]:
        """Copy every chunk to its hidden face of `live`; neighbors with the same one go in one copy."""
        faces = self._plane.faces & LIVE_FACE
        chunks = self._plane.layout.chunks
        edges = [0, *(np.flatnonzero(np.diff(faces)) + 1).tolist(), len(chunks)]
        for first, last in itertools.pairwise(edges):
            start, stop = chunks[first][0], chunks[last - 1][1]
            yield self._live[0 if faces[first] else 1][start:stop], self._master[start:stop]

    def _folded_copy(self, one: _Staged) -> Copy:
        start, stop = self._plane.layout.chunks[one.chunk]
        return self._folded[1 - self._face(one.chunk, FOLDED_FACE)][start:stop], one.inbox

    def _face(self, chunk: int, bit: int) -> int:
        return 1 if self._plane.faces[chunk] & bit else 0

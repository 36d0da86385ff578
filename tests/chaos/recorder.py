"""Watch a node from inside without changing it: its ledger, its exchanges, its tasks. Only the chaos suite does this.

Production code knows nothing of it: methods are wrapped where the node's process is started. Each exists or installing
fails, so a change of the engine cannot silently switch the ledger off; and a delta that reaches the inbox outside of
any exchange is an error in the report.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from adpsgd_node.core.exchange.outcome import SettleEnd
from adpsgd_node.daemon.exchange_io import ExchangeEngine
from adpsgd_node.daemon.exchange_report import ExchangeReport
from adpsgd_node.daemon.initiate import Initiation
from adpsgd_node.daemon.respond import Response
from adpsgd_node.daemon.undo import UndoLog
from adpsgd_node.ids import NodeId
from adpsgd_node.plane import Plane
from chaos.ledger import Ledger

__all__ = ["Recorder", "recording"]

Delta = NDArray[np.float32]


class Recorder:
    """What one life of a node does, as its engine shows it."""

    def __init__(self, identity: NodeId, ledger: Ledger) -> None:
        self.identity = identity
        self.ledger = ledger
        self.engine: ExchangeEngine
        self.plane: Plane | None = None
        self.planes = 0
        """How many planes this life has had; what an earlier one held is gone, as with a reboot."""
        self.outcomes: Counter[str] = Counter()
        self.settled: Counter[str] = Counter()
        self.defects: list[str] = []
        self._dropped: NDArray[np.float64] | None = None
        self._break_next = False

    def break_off(self) -> None:
        """Break the exchanges that run now, and the next one in its middle: few run at any given moment."""
        self.engine.break_off()
        self._break_next = True

    def use(self, plane: Plane) -> None:
        self.plane = plane
        self.planes += 1
        self._dropped = np.zeros(plane.layout.elements, np.float64)
        self.ledger.begin(plane.layout.elements)

    def added(self, peer: NodeId | None, chunk: int, delta: Delta) -> None:
        assert self.plane is not None
        if self._break_next:
            self._break_next = False
            asyncio.get_running_loop().call_soon(self.engine.break_off)
        if peer is None:
            self.defects.append(f"chunk {chunk} of the inbox was changed outside of any exchange")
        else:
            self.ledger.add(peer, self.plane.layout.chunks[chunk][0], delta)

    def rebased(self, chunk: int) -> None:
        """Keep what the face held that is about to be zeroed."""
        assert self.plane is not None
        assert self._dropped is not None
        start, stop = self.plane.layout.chunks[chunk]
        self._dropped[start:stop] += self.plane.inbox_faces[1 - int(self.plane.inbox_face[chunk])][start:stop]

    def inbox_error(self) -> float:
        """Return |inbox - received|: how far fp32 sums in shared memory are from the deltas they are made of."""
        if self.plane is None or self._dropped is None or self.ledger.received is None:
            return 0.0
        front, back = (face.astype(np.float64) for face in self.plane.inbox_faces)
        return float(np.linalg.norm(front + back + self._dropped - self.ledger.received))

    def unsettled(self) -> list[NodeId]:
        """Return with whom a broken exchange is not settled yet, in both roles; running ones are none."""
        engine = self.engine
        running = Counter(peer for peer, streams in engine._streams.items() for _ in streams)
        journaled = Counter(engine.journal.initiators())
        left = journaled - running  # a running inbound exchange has its entry; an outbound one hides none for long
        return sorted({*engine._settling.peers, *left}, key=str)

    def report(self) -> dict[str, Any]:
        """Say all of it in plain values."""
        norm = _norm(self.plane)
        return {
            "name": self.identity.name,
            "boot": self.identity.boot,
            "planes": self.planes,
            "norm": norm,
            "outcomes": dict(self.outcomes),
            "settled": dict(self.settled),
            "unsettled": [[peer.name, peer.boot] for peer in self.unsettled()],
            "unattributed": self.ledger.unattributed(),
            "inbox_error": self.inbox_error(),
            "defects": self.defects,
        }


@contextmanager
def recording(made: Callable[[Recorder], None], ledger_of: Callable[[NodeId], Ledger]) -> Iterator[None]:
    """Record every engine made in this process; `made` hears of each when it is made, in the event loop."""
    installed = _Recording(made, ledger_of)
    with installed.patched():
        yield


class _Recording:
    def __init__(self, made: Callable[[Recorder], None], ledger_of: Callable[[NodeId], Ledger]) -> None:
        self._made = made
        self._ledger_of = ledger_of
        self._recorders: dict[int, Recorder] = {}  # by plane
        self._peer: NodeId | None = None

    @contextmanager
    def patched(self) -> Iterator[None]:
        replacements: list[tuple[type, str, Callable[..., Any]]] = [
            (ExchangeEngine, "__init__", self._init(ExchangeEngine.__init__)),
            (ExchangeEngine, "use", self._use(ExchangeEngine.use)),
            (Plane, "add_to_inbox", self._add(Plane.add_to_inbox)),
            (Plane, "rebase", self._rebase(Plane.rebase)),
            (Initiation, "_apply", self._attributed(Initiation._apply, lambda self, *_: self._open.responder)),
            (Response, "_merge_chunk", self._attributed(Response._merge_chunk, lambda self, *_: self.key.initiator)),
            (UndoLog, "_revert", self._attributed(UndoLog._revert, lambda _, key, *__: key.initiator)),
        ]
        patches = [mock.patch.object(owner, name, wrapper) for owner, name, wrapper in replacements]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in reversed(patches):
                patch.stop()

    def _init(self, original: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(original)
        owner = self

        def __init__(self: ExchangeEngine, *args: Any, **kwargs: Any) -> None:
            bound = signature.bind(self, *args, **kwargs)
            identity = bound.arguments["identity"]
            recorder = Recorder(identity, owner._ledger_of(identity))
            around = bound.arguments["surroundings"]

            def report(ended: ExchangeReport) -> None:
                recorder.outcomes[f"{ended.role.value} {ended.outcome.value}"] += 1
                around.report(ended)

            def settled(end: SettleEnd) -> None:
                recorder.settled[end.value] += 1
                around.settled(end)

            bound.arguments["surroundings"] = dataclasses.replace(around, report=report, settled=settled)
            original(*bound.args, **bound.kwargs)
            recorder.engine = self
            self.recorder = recorder  # type: ignore[attr-defined]
            owner._made(recorder)

        return __init__

    def _use(self, original: Callable[..., None]) -> Callable[..., None]:
        def use(engine: ExchangeEngine, plane: Plane, *args: Any) -> None:
            recorder: Recorder = engine.recorder  # type: ignore[attr-defined]
            if recorder.plane is not None:
                self._recorders.pop(id(recorder.plane), None)
            original(engine, plane, *args)
            self._recorders[id(plane)] = recorder
            recorder.use(plane)

        return use

    def _add(self, original: Callable[..., None]) -> Callable[..., None]:
        def add_to_inbox(plane: Plane, chunk: int, delta: Delta) -> None:
            recorder = self._recorders.get(id(plane))
            if recorder is not None:
                recorder.added(self._peer, chunk, delta)
            original(plane, chunk, delta)

        return add_to_inbox

    def _rebase(self, original: Callable[..., bool]) -> Callable[..., bool]:
        def rebase(plane: Plane, chunk: int) -> bool:
            recorder = self._recorders.get(id(plane))
            if recorder is not None and not plane.rebasing(chunk):
                recorder.rebased(chunk)
            return original(plane, chunk)

        return rebase

    def _attributed(self, original: Callable[..., Any], peer_of: Callable[..., NodeId]) -> Callable[..., Any]:
        """Name the peer to whatever the call writes to the inbox. Such a call never waits, so none overlap."""
        assert not asyncio.iscoroutinefunction(original), f"{original.__qualname__} waits: its writes would mix"

        def attributed(*args: Any, **kwargs: Any) -> Any:
            before, self._peer = self._peer, peer_of(*args, **kwargs)
            try:
                return original(*args, **kwargs)
            finally:
                self._peer = before

        return attributed


def _norm(plane: Plane | None) -> float:
    """Return |live| of what the plane shows now; 0 without one."""
    if plane is None:
        return 0.0
    return float(np.linalg.norm([np.linalg.norm(plane.live_chunk(chunk)) for chunk in range(len(plane.layout.chunks))]))

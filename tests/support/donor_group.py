"""Donors with real planes on the in-memory network, joiners that fetch from them, and a record of every chunk given."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.donor import Donor, Holding
from adpsgd_node.daemon.fetch import Fetcher
from adpsgd_node.daemon.settings import JoiningConfig
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.net.memory import MemoryNetwork
from adpsgd_node.net.transport import Method, Stream, StreamMethod
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.telemetry.metrics import Metrics
from adpsgd_node.wire.fetch import FetchChunk, FetchFrame, FetchHeader, decode_fetch, encode_fetch

__all__ = ["RUN", "DonorGroup", "Giver", "counted", "layout_of"]

RUN = RunId("test")
Tamper = Callable[[FetchFrame], FetchFrame | None]
"""Changes what a donor sends; None: the frame is left out."""


def layout_of(elements: int, chunk_bytes: int) -> Layout:
    return Layout.build([TensorSpec("weight", (elements,), "float32", Segment.PARAMETERS)], chunk_bytes)


def counted(metrics: Metrics, name: str) -> float:
    """Read one series off the exported metrics."""
    lines = [line for line in metrics.render().decode().splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].rpartition(" ")[2])


@dataclass
class Giver:
    """One donor."""

    member: Member
    plane: Plane
    donor: Donor
    metrics: Metrics
    given: list[int] = field(default_factory=list)
    """Chunks in the order in which they were handed to the network."""
    headers: list[FetchHeader] = field(default_factory=list)
    on_chunk: Callable[[int], None] = lambda _: None
    """Told after each chunk how many have been given."""
    tamper: Tamper = lambda frame: frame
    has_model: bool = True
    phase: Phase = Phase.TRAINING

    def holding(self) -> Holding:
        return Holding(self.phase, self.plane, self.has_model)


class DonorGroup:
    """The nodes of one test."""

    def __init__(self, *, elements: int, chunk_bytes: int, seed: int = 0) -> None:
        self.network = MemoryNetwork(seed)
        self.layout = layout_of(elements, chunk_bytes)
        self.givers: list[Giver] = []
        self._values = np.random.default_rng(seed)
        self._joiners = 0

    @property
    def members(self) -> list[Member]:
        return [giver.member for giver in self.givers]

    async def add(self, bytes_per_s: int = 1 << 20, layout: Layout | None = None) -> Giver:
        """Start a donor whose parameters are random numbers of its own."""
        identity = NodeId(f"n{len(self.givers)}", 1)
        address = Address(f"{identity.name}:1")
        plane = Plane.create(layout or self.layout)
        plane.live[:] = self._values.standard_normal(len(plane.live)).astype(np.float32)
        metrics = Metrics(version="test")
        member = Member(identity, address, 0, MemberState.ALIVE, Phase.TRAINING)
        donor = Donor(
            identity, RUN, "ad-psgd", lambda: giver.holding(), JoiningConfig(donor_bytes_per_s=bytes_per_s), metrics
        )
        giver = Giver(member, plane, donor, metrics)

        async def fetch(stream: Stream) -> None:
            await donor.fetch(_Recorder(stream, giver))

        await self.network.transport(address).serve({Method.OFFER: donor.offer}, {StreamMethod.FETCH: fetch})
        self.givers.append(giver)
        return giver

    def joiner(self, donors: int = 3, run: RunId = RUN) -> tuple[Fetcher, Plane, Metrics]:
        """Make a node that has nothing yet."""
        self._joiners += 1
        metrics = Metrics(version="test")
        transport = self.network.transport(Address(f"joiner-{self._joiners}:1"))
        rng = random.Random(self._joiners)
        fetcher = Fetcher(run, transport, JoiningConfig(donors=donors), metrics, rng)
        return fetcher, Plane.create(self.layout), metrics

    def sources(self, plane: Plane) -> list[str]:
        """Name, chunk by chunk, the donor whose parameters `plane` holds; empty where it is nobody's."""
        names = []
        for start, stop in self.layout.chunks:
            same = [g for g in self.givers if np.array_equal(g.plane.live[start:stop], plane.live[start:stop])]
            names.append(same[0].member.name if same else "")
        return names


class _Recorder(Stream):
    """The donor's end of a stream, with a record of what it sends."""

    def __init__(self, stream: Stream, giver: Giver) -> None:
        self._stream = stream
        self._giver = giver

    async def send(self, message: bytes) -> None:
        frame = self._giver.tamper(decode_fetch(message))
        if frame is None:
            return
        await self._stream.send(encode_fetch(frame))
        if isinstance(frame, FetchHeader):
            self._giver.headers.append(frame)
        if isinstance(frame, FetchChunk):
            self._giver.given.append(frame.index)
            self._giver.on_chunk(len(self._giver.given))

    async def receive(self) -> bytes | None:
        return await self._stream.receive()

    async def end(self) -> None:
        await self._stream.end()

    def cancel(self) -> None:
        self._stream.cancel()

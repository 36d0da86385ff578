"""A daemon's checkpointing with a trainer, a run and a peer that a test makes up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from adpsgd_node.checkpoint.manifest import MANIFEST_FILE, Manifest, decode_manifest
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.progress import Progress, ProgressEntry
from adpsgd_node.daemon.checkpointing import Checkpointing
from adpsgd_node.daemon.training import Training
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.ids import Address, NodeId
from adpsgd_node.telemetry.metrics import Metrics

LONG_S = 20.0
OWN = NodeId("n0", 5)
PEER = Member(NodeId("n1", 2), Address("10.0.0.2:7400"), 0, MemberState.ALIVE, Phase.TRAINING)


@dataclass
class Bench:
    """One node's checkpointing, and all it is told of the node."""

    checkpointing: Checkpointing
    training: Training
    progress: Progress
    metrics: Metrics
    watch: Watch
    trainer_there: bool = True
    refused: str = ""
    """Why peers refuse what this node sends."""

    @property
    def header(self) -> Any:
        assert self.training.plane is not None
        return self.training.plane.header

    def step(self, count: int = 1) -> None:
        """Let the trainer take steps."""
        self.header.step += count
        self.header.samples += 10 * count
        self.progress.merge([ProgressEntry(OWN, self.header.step, self.header.samples)])
        self.watch.notify()

    def write_state(self, text: str) -> None:
        """Do as the trainer does when its part is asked for."""
        number = self.header.save_state
        (self.checkpointing.trainer_folder / f"state-{number}.pt").write_text(text)
        self.header.state_saved = number
        self.watch.notify()

    async def asked(self) -> None:
        async with asyncio.timeout(LONG_S):
            while self.header.save_state <= self.header.state_saved:
                await asyncio.sleep(0)

    @asynccontextmanager
    async def answering(self, text: str = "optimizer") -> AsyncIterator[None]:
        """Have a trainer that answers at once."""

        async def answer() -> None:
            while True:
                await self.asked()
                self.write_state(text)
                await asyncio.sleep(0)

        task = asyncio.create_task(answer())
        try:
            yield
        finally:
            task.cancel()

    def total(self, outcome: str) -> float:
        for family in text_string_to_metric_families(self.metrics.render().decode()):
            for sample in family.samples:
                if sample.name == "adpsgd_checkpoints_total" and sample.labels == {"outcome": outcome}:
                    return sample.value
        raise AssertionError(outcome)


def manifest_of(checkpoint: Path) -> Manifest:
    return decode_manifest((checkpoint / MANIFEST_FILE).read_bytes())


def drafts(bench: Bench) -> list[Path]:
    return [path for path in bench.checkpointing.trainer_folder.parent.iterdir() if path.name.startswith(".tmp-")]

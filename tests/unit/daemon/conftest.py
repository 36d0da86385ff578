"""What several tests of the daemon start from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from adpsgd_node.core.progress import Progress
from adpsgd_node.daemon.checkpointing import Checkpointing
from adpsgd_node.daemon.settings import CheckpointConfig, TargetConfig
from adpsgd_node.daemon.snapshot import Subject
from adpsgd_node.daemon.training import Training
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.plane import TrainerState
from adpsgd_node.telemetry.metrics import Metrics
from support.checkpoint_bench import OWN, PEER, Bench
from support.checkpoints import LAYOUT, RUN, SPECS


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make_one(interval_s: float = 0.0, keep: int = 2, value: float = 1.0) -> Bench:
        for bench in made:
            bench.checkpointing.close()  # the life before
        training = Training(TargetConfig(), LAYOUT.chunk_bytes)
        plane, _ = training.attach(SPECS, 0)
        plane.live[:] = value
        plane.header.trainer_state = TrainerState.STEPPING
        training.has_model = True
        watch, progress = Watch(), Progress(owner=OWN)
        bench = Bench(None, training, progress, Metrics(version="1"), watch)  # type: ignore[arg-type]
        subject = Subject(
            identity=lambda: OWN,
            run_id=RUN,
            training=training,
            spoilt=lambda: training.poison or bench.refused,
            progress=lambda: progress,
            peers=lambda: [PEER],
            attached=lambda: bench.trainer_there,
            watch=watch,
        )
        config = CheckpointConfig(checkpoint_interval_s=interval_s, checkpoint_keep=keep)
        bench.checkpointing = Checkpointing(config, tmp_path, subject, bench.metrics)
        bench.checkpointing.open(asyncio.get_running_loop().time())
        made.append(bench)
        return bench

    yield make_one
    for bench in made:
        bench.checkpointing.close()

"""A daemon writes checkpoints beside its trainer: whole ones, one at a time, and says when it cannot."""

from __future__ import annotations

import asyncio
import errno
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from adpsgd_node.checkpoint import disk
from adpsgd_node.checkpoint.manifest import MANIFEST_FILE, MODEL_FILE, Manifest, decode_manifest
from adpsgd_node.checkpoint.plane_file import load_model
from adpsgd_node.core.adoption import Standing
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.progress import Progress, ProgressEntry
from adpsgd_node.daemon.checkpointing import Checkpointing
from adpsgd_node.daemon.settings import CheckpointConfig, TargetConfig
from adpsgd_node.daemon.snapshot import Subject
from adpsgd_node.daemon.training import Training
from adpsgd_node.daemon.watch import Watch
from adpsgd_node.errors import CheckpointError
from adpsgd_node.ids import Address, NodeId
from adpsgd_node.plane import TrainerState
from adpsgd_node.telemetry.metrics import Metrics
from support.checkpoints import LAYOUT, RUN, SPECS, flip

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


def manifest_of(checkpoint: Path) -> Manifest:
    return decode_manifest((checkpoint / MANIFEST_FILE).read_bytes())


def drafts(bench: Bench) -> list[Path]:
    return [path for path in bench.checkpointing.trainer_folder.parent.iterdir() if path.name.startswith(".tmp-")]


async def test_a_checkpoint_holds_the_model_the_trainers_part_and_what_is_known_of_the_run(make) -> None:
    bench = make()
    bench.step(7)
    bench.progress.merge([ProgressEntry(NodeId("n1", 2), 9, 90)])
    async with bench.answering("seven"):
        path = await bench.checkpointing.save("drain", LONG_S)
    manifest = manifest_of(path)
    assert path.name == "000001"
    assert (manifest.node, manifest.step, manifest.samples) == (OWN, 7, 70)
    assert (manifest.run_steps, manifest.run_samples, manifest.reason) == (16, 160, "drain")
    assert manifest.progress == (ProgressEntry(OWN, 7, 70), ProgressEntry(NodeId("n1", 2), 9, 90))
    assert [(hint.name, hint.address) for hint in manifest.members] == [("n1", "10.0.0.2:7400")]
    assert (path / "trainer.pt").read_text() == "seven"
    assert manifest.trainer_absent == ""
    live = np.zeros(LAYOUT.elements, np.float32)
    load_model(path / MODEL_FILE, LAYOUT, live)
    assert live[0] == 1.0
    assert bench.checkpointing.newest() == path
    assert 0 <= bench.checkpointing.age_s(asyncio.get_running_loop().time()) < LONG_S
    assert bench.total("written") == 1
    assert list(bench.checkpointing.trainer_folder.iterdir()) == []


async def test_without_a_trainer_the_checkpoint_goes_on_and_says_so(make) -> None:
    bench = make()
    bench.trainer_there = False
    manifest = manifest_of(await bench.checkpointing.save("request", LONG_S))
    assert manifest.trainer_absent == "no script was running"
    assert [file.name for file in manifest.files] == [MODEL_FILE]


async def test_a_trainer_that_hangs_is_not_waited_for_beyond_its_time(make) -> None:
    bench = make()
    path = await bench.checkpointing.save("request", 0.5)
    assert "wrote none within 0.25 s" in manifest_of(path).trainer_absent


async def test_a_part_that_comes_late_is_for_the_next_checkpoint(make) -> None:
    bench = make(keep=9)
    await bench.checkpointing.save("request", 0.2)
    asked = bench.header.save_state
    under_way = bench.checkpointing.trainer_folder / f".state-{asked}.pt.tmp"
    under_way.write_text("half")
    await bench.checkpointing.save("request", 0.2)
    assert bench.header.save_state == asked, "nothing more is asked of a trainer that is at it"
    assert under_way.exists()
    under_way.unlink()
    bench.write_state("late")
    bench.trainer_there = False
    path = await bench.checkpointing.save("request", LONG_S)
    assert (path / "trainer.pt").read_text() == "late"


async def test_a_newer_part_is_asked_for_when_the_last_one_came_late(make) -> None:
    bench = make()
    await bench.checkpointing.save("request", 0.2)
    bench.write_state("late")
    async with bench.answering("newer"):
        path = await bench.checkpointing.save("request", LONG_S)
    assert (path / "trainer.pt").read_text() == "newer"


async def test_a_trainer_that_dies_meanwhile_is_not_waited_for(make) -> None:
    bench = make()
    saving = asyncio.create_task(bench.checkpointing.save("request", 10 * LONG_S))
    await bench.asked()
    bench.trainer_there = False
    bench.watch.notify()
    async with asyncio.timeout(LONG_S):
        assert manifest_of(await saving).trainer_absent == "the script ended"


async def test_a_trainer_that_does_not_step_is_not_asked(make) -> None:
    bench = make()
    bench.header.trainer_state = TrainerState.FINISHED
    assert manifest_of(await bench.checkpointing.save("request", LONG_S)).trainer_absent == "the script does not step"


async def test_why_the_trainer_could_not_write_its_part_is_in_the_manifest(make) -> None:
    bench = make()
    saving = asyncio.create_task(bench.checkpointing.save("request", LONG_S))
    await bench.asked()
    number = bench.header.save_state
    (bench.checkpointing.trainer_folder / f"state-{number}.error").write_text("SGD['x'] is a function")
    bench.header.state_saved = number
    bench.watch.notify()
    assert manifest_of(await saving).trainer_absent == "SGD['x'] is a function"


async def test_what_a_trainer_wrote_before_it_ended_is_taken(make) -> None:
    bench = make()
    async with bench.answering("last"):
        await bench.checkpointing.ask_trainer(LONG_S)
    bench.trainer_there = False
    first = await bench.checkpointing.save("drain", LONG_S)
    assert (first / "trainer.pt").read_text() == "last"
    second = await bench.checkpointing.save("drain", LONG_S)
    assert manifest_of(second).trainer_absent == "no script was running"


async def test_one_checkpoint_is_written_at_a_time(make) -> None:
    bench = make(keep=5)
    saving = [asyncio.create_task(bench.checkpointing.save(f"number {n}", LONG_S)) for n in range(3)]
    await bench.asked()
    assert len(drafts(bench)) == 1
    async with bench.answering():
        paths = await asyncio.gather(*saving)
    assert [path.name for path in paths] == ["000001", "000002", "000003"]
    assert [manifest_of(path).reason for path in paths] == ["number 0", "number 1", "number 2"]


async def test_old_checkpoints_are_removed(make) -> None:
    bench = make(keep=2)
    bench.trainer_there = False
    paths = [await bench.checkpointing.save("request", LONG_S) for _ in range(4)]
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert bench.checkpointing.newest() == paths[-1]


async def test_without_a_model_there_is_nothing_to_write(make) -> None:
    bench = make()
    bench.training.has_model = False
    with pytest.raises(CheckpointError, match="no model yet"):
        await bench.checkpointing.save("request", LONG_S)
    assert math.isnan(bench.checkpointing.age_s(0.0))
    assert bench.checkpointing.problem == ""


async def test_a_full_disk_costs_the_checkpoint_and_nothing_else(make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()
    bench.trainer_there = False
    before = await bench.checkpointing.save("request", LONG_S)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk.FileWriter, "write", full)
        with pytest.raises(CheckpointError, match="No space left on device.*--checkpoints"):
            await bench.checkpointing.save("request", LONG_S)
    assert "No space left on device" in bench.checkpointing.problem
    assert (bench.total("written"), bench.total("failed")) == (1, 1)
    assert bench.checkpointing.newest() == before
    assert before.exists()
    assert drafts(bench) == []
    await bench.checkpointing.save("request", LONG_S)
    assert bench.checkpointing.problem == ""


async def test_a_checkpoint_that_takes_too_long_is_given_up_and_leaves_nothing(make) -> None:
    bench = make()
    held = await bench.checkpointing._busy.acquire()
    assert held
    with pytest.raises(CheckpointError, match=r"not done within 0\.05 s"):
        await bench.checkpointing.save("request", 0.05)
    bench.checkpointing._busy.release()
    assert drafts(bench) == []


async def test_a_cancelled_checkpoint_leaves_nothing(make) -> None:
    bench = make()
    saving = asyncio.create_task(bench.checkpointing.save("request", LONG_S))
    await bench.asked()
    assert len(drafts(bench)) == 1
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert drafts(bench) == []
    assert bench.checkpointing.newest() is None
    async with bench.answering():
        await bench.checkpointing.save("request", LONG_S)


async def test_parameters_that_are_not_finite_are_never_kept(make) -> None:
    bench = make(value=float("nan"))
    bench.trainer_there = False
    with pytest.raises(CheckpointError, match="not finite"):
        await bench.checkpointing.save("request", LONG_S)
    assert bench.checkpointing.newest() is None
    assert drafts(bench) == []


async def test_a_node_that_is_poisoned_meanwhile_keeps_nothing(make) -> None:
    bench = make()
    saving = asyncio.create_task(bench.checkpointing.save("request", LONG_S))
    await bench.asked()
    bench.training.poisoned("its loss is not finite")
    bench.write_state("poison")
    with pytest.raises(CheckpointError, match="gave its model up"):
        await saving
    assert bench.checkpointing.newest() is None


async def test_one_comes_each_interval_as_long_as_the_run_goes_on(make) -> None:
    bench = make(interval_s=0.05)
    async with bench.answering():
        running = asyncio.create_task(bench.checkpointing.run())
        seen: list[Path] = []
        async with asyncio.timeout(LONG_S):
            while len(seen) < 3:
                bench.step()
                newest = bench.checkpointing.newest()
                if newest is not None and newest not in seen:
                    seen.append(newest)
                await asyncio.sleep(0.01)
        running.cancel()
    assert bench.total("written") >= 3
    assert manifest_of(seen[-1]).reason == "interval"


async def test_nothing_is_written_while_the_run_stands_still(make) -> None:
    bench = make(interval_s=0.02)
    bench.trainer_there = False
    running = asyncio.create_task(bench.checkpointing.run())
    async with asyncio.timeout(LONG_S):
        while bench.total("written") < 1:
            await asyncio.sleep(0.01)
        bench.training.has_model = False
        bench.step()
        bench.training.has_model = True
        while bench.total("written") < 2:  # there is news
            await asyncio.sleep(0.01)
    assert bench.checkpointing._has_news() is False
    running.cancel()


async def test_what_is_there_at_the_start_is_offered_until_there_is_a_live_model(make) -> None:
    first = make()
    first.step(3)
    first.trainer_there = False
    path = await first.checkpointing.save("request", LONG_S)
    assert first.checkpointing.standing() is None, "its live model is better"
    second = make()
    second.training.has_model = False
    assert second.checkpointing.newest() == path
    assert second.checkpointing.standing() == Standing(samples=30, steps=3)
    assert second.checkpointing.age_s(asyncio.get_running_loop().time()) >= 0
    second.training.has_model = True
    assert second.checkpointing.standing() is None


async def test_a_damaged_checkpoint_is_not_loaded_nor_offered_any_more(make) -> None:
    first = make()
    first.trainer_there = False
    old = await first.checkpointing.save("request", LONG_S)
    first.training.plane.live[:] = 2.0
    first.step()
    new = await first.checkpointing.save("request", LONG_S)
    flip(new / MODEL_FILE, -5)
    second = make(value=0.0)
    second.training.has_model = False
    restorer, plane = second.checkpointing.restorer, second.training.plane
    newest = restorer.newest(LAYOUT.schema)
    assert newest.path == new, "its size is right: only reading it tells"
    assert not await restorer.load(newest, plane)
    assert plane.live[0] == 0.0
    assert second.checkpointing.newest() == old
    assert await restorer.load(restorer.newest(LAYOUT.schema), plane)
    assert plane.live[0] == 1.0


async def test_the_newest_trainers_part_that_is_whole_is_restored(make) -> None:
    bench = make(keep=4)
    async with bench.answering("one"):
        one = await bench.checkpointing.save("request", LONG_S)
    async with bench.answering("two"):
        two = await bench.checkpointing.save("request", LONG_S)
    bench.trainer_there = False
    await bench.checkpointing.save("request", LONG_S)
    restorer = bench.checkpointing.restorer
    assert await restorer.trainer_part(LAYOUT.schema) == two / "trainer.pt"
    flip(two / "trainer.pt", 0)
    assert await restorer.trainer_part(LAYOUT.schema) == one / "trainer.pt"
    (one / "trainer.pt").unlink()
    assert await restorer.trainer_part(LAYOUT.schema) is None


async def test_checkpoints_of_another_model_are_refused_once_the_model_is_known(make) -> None:
    bench = make()
    bench.trainer_there = False
    await bench.checkpointing.save("request", LONG_S)
    restorer = bench.checkpointing.restorer
    other = bytes(32)
    assert restorer.newest(other) is None
    restorer.meet(other)
    assert restorer.newest(None) is None

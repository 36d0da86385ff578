"""A daemon writes checkpoints beside its trainer: whole ones, one at a time, and says when it cannot."""

from __future__ import annotations

import asyncio
import errno
import math

import numpy as np
import pytest

from adpsgd_node.checkpoint import disk
from adpsgd_node.checkpoint.manifest import MODEL_FILE
from adpsgd_node.checkpoint.plane_file import load_model
from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.errors import CheckpointError
from adpsgd_node.ids import NodeId
from adpsgd_node.plane import TrainerState
from support.checkpoint_bench import LONG_S, OWN, drafts, manifest_of
from support.checkpoints import LAYOUT


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


async def test_a_model_that_the_peers_refuse_is_not_kept_until_they_accept_it(make) -> None:
    bench = make(interval_s=0.05)
    bench.trainer_there = False
    bench.refused = "3 peers refuse what this node sends"
    with pytest.raises(CheckpointError, match="3 peers refuse"):
        await bench.checkpointing.save("request", LONG_S)
    assert bench.checkpointing.newest() is None
    assert drafts(bench) == []
    bench.refused = ""
    await bench.checkpointing.save("request", LONG_S)
    assert bench.checkpointing.newest() is not None

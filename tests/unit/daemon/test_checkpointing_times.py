"""When a daemon writes checkpoints by itself, and which of those it finds it goes on from."""

from __future__ import annotations

import asyncio
from pathlib import Path

from adpsgd_node.checkpoint.manifest import MODEL_FILE
from adpsgd_node.core.adoption import Standing
from support.checkpoint_bench import LONG_S, manifest_of
from support.checkpoints import LAYOUT, flip


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
                await asyncio.sleep(0.01)  # between two looks
        running.cancel()
    assert bench.total("written") >= 3
    assert manifest_of(seen[-1]).reason == "interval"


async def test_nothing_is_written_while_the_run_stands_still(make) -> None:
    bench = make(interval_s=0.02)
    bench.trainer_there = False
    running = asyncio.create_task(bench.checkpointing.run())
    async with asyncio.timeout(LONG_S):
        while bench.total("written") < 1:
            await asyncio.sleep(0.01)  # between two looks
        bench.training.has_model = False
        bench.step()
        bench.training.has_model = True
        while bench.total("written") < 2:  # there is news
            await asyncio.sleep(0.01)  # between two looks
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

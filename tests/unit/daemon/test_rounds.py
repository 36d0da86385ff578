from __future__ import annotations

import asyncio
import random

import pytest

from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.daemon.rounds import Around, Rounds
from adpsgd_node.daemon.surroundings import DeclinedError
from adpsgd_node.ids import NodeId

A, B = NodeId("a", 1), NodeId("b", 1)


class Bench:
    """Rounds with a record of what they asked for."""

    def __init__(self, *opened_here: str) -> None:
        self.opened: list[str] = []
        self.mixed: list[int] = []
        self.frozen = False
        self.rounds = Rounds(
            random.Random(1), Around(open=self.opened.append, freeze=self._freeze, mixed=self.mixed.append)
        )
        self.rounds.meet({"a": 0.25, "b": 1 / 3}, frozenset(opened_here), frozenset())
        self.rounds.resume()

    def _freeze(self, frozen: bool) -> None:
        self.frozen = frozen

    def ask(self, peer: NodeId, log: list[str]) -> tuple[asyncio.Task[None], asyncio.Event]:
        over = asyncio.Event()

        async def exchange() -> None:
            async with self.rounds.admission(peer, 1):
                log.append(peer.name)
                await over.wait()

        return asyncio.create_task(exchange()), over


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)  # let tasks that can run do so


async def test_an_exchange_goes_on_in_the_round_that_its_node_enters_and_the_round_waits_for_its_end() -> None:
    bench, log = Bench("b"), list[str]()
    task, over = bench.ask(A, log)
    await settle()
    assert log == []
    bench.rounds.stepped(1)
    await settle()
    assert (log, bench.opened) == (["a"], ["b"])
    bench.rounds.opened("b", Outcome.COMPLETE, 1)
    assert bench.mixed == []
    over.set()
    await task
    assert bench.mixed == [1]
    bench.rounds.close()


async def test_who_gives_up_waiting_is_forgotten() -> None:
    bench, log = Bench("b"), list[str]()
    task, _ = bench.ask(A, log)
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.rounds.stepped(1)
    bench.rounds.opened("b", Outcome.COMPLETE, 1)
    assert bench.mixed == [], "the one that went was taken for met"
    again, over = bench.ask(A, log)
    await settle()
    over.set()
    await again
    assert (log, bench.mixed) == (["a"], [1])
    bench.rounds.close()


async def test_one_that_is_broken_off_while_it_runs_has_been_met() -> None:
    bench, log = Bench("b"), list[str]()
    bench.rounds.stepped(1)
    bench.rounds.opened("b", Outcome.COMPLETE, 1)
    task, _ = bench.ask(A, log)
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.mixed == [1]
    bench.rounds.close()


async def test_only_between_resume_and_pause_what_is_published_is_averaged_alone() -> None:
    bench = Bench()
    assert bench.frozen
    bench.rounds.pause()
    assert not bench.frozen


async def test_nobody_waits_for_rounds_that_are_closed() -> None:
    bench, log = Bench("b"), list[str]()
    waiting, over = bench.ask(A, log)
    await settle()
    bench.rounds.close()
    late, late_over = bench.ask(B, log)
    await settle()
    assert sorted(log) == ["a", "b"]
    over.set()
    late_over.set()
    await asyncio.gather(waiting, late)


async def test_a_share_is_twice_the_weight_as_a_float32_and_a_stranger_s_is_the_whole() -> None:
    bench = Bench()
    assert bench.rounds.share(A) == 0.5
    assert bench.rounds.share(B) != 2 / 3
    assert abs(bench.rounds.share(B) - 2 / 3) < 1e-7
    assert bench.rounds.share(NodeId("stranger", 1)) == 1.0


async def test_an_exchange_that_is_declined_after_its_wait_is_waited_for_again() -> None:
    bench, log = Bench("b"), list[str]()
    bench.rounds.stepped(1)
    bench.rounds.opened("b", Outcome.COMPLETE, 1)
    with pytest.raises(DeclinedError):
        async with bench.rounds.admission(A, 1):
            raise DeclinedError
    assert bench.mixed == [], "it has not met a"
    task, over = bench.ask(A, log)
    await settle()
    over.set()
    await task
    assert (log, bench.mixed) == (["a"], [1])
    bench.rounds.close()

from __future__ import annotations

import asyncio

import pytest

from support.virtual_clock import DeadlockError, run_virtual


def now() -> float:
    return asyncio.get_running_loop().time()


def test_clock_starts_at_zero_and_jumps_to_the_next_timer() -> None:
    async def main() -> list[float]:
        times = [now()]
        for delay_s in (5.0, 3600.0, 0.0):
            await asyncio.sleep(delay_s)
            times.append(now())
        return times

    assert run_virtual(main()) == pytest.approx([0.0, 5.0, 3605.0, 3605.0])


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def main() -> list[str]:
        order: list[str] = []

        async def after(delay_s: float, name: str) -> None:
            await asyncio.sleep(delay_s)
            order.append(name)

        await asyncio.gather(after(3.0, "c"), after(1.0, "a"), after(2.0, "b"))
        return order

    assert run_virtual(main()) == ["a", "b", "c"]


def test_work_that_is_ready_runs_before_the_clock_moves() -> None:
    async def main() -> float:
        async def busy() -> float:
            for _ in range(1000):
                await asyncio.sleep(0)
            return now()

        task = asyncio.create_task(busy())
        await asyncio.sleep(1.0)
        return await task

    assert run_virtual(main()) == 0.0


def test_timeout_expires_in_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 86400.0 * 30)
        return now()

    assert run_virtual(main()) == pytest.approx(86400.0 * 30)


def test_waiting_for_what_never_comes_is_a_deadlock_and_named() -> None:
    async def main() -> None:
        await asyncio.create_task(asyncio.Event().wait(), name="the-one-that-waits")

    with pytest.raises(DeadlockError, match="the-one-that-waits"):
        run_virtual(main())


def test_error_of_the_coroutine_comes_out_and_other_tasks_are_cancelled() -> None:
    ended: list[bool] = []

    async def background() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append(True)

    async def main() -> None:
        task = asyncio.create_task(background())
        await asyncio.sleep(1.0)
        raise ValueError(f"with {task.get_name()} running")

    with pytest.raises(ValueError, match="running"):
        run_virtual(main())
    assert ended == [True]

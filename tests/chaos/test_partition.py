"""Cut real nodes into two halves that both train, and heal the cut: one membership, one model, nobody acting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest

from chaos.cluster import Cluster
from chaos.conductor import crossing
from chaos.consensus import consensus_distance
from chaos.life import Life
from chaos.view import agree, ask_all, view_of

NODES = 8
CUT_S = 60.0

START_LIMIT_S = 120.0
SPLIT_LIMIT_S = 30.0
VIEW_LIMIT_S = 10.0
CONSENSUS_LIMIT_S = 60.0
WARM_SAMPLES = 30_000
LOOK_S = 0.5
LONG_S = 3600.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("namespaces")]


async def total_samples(lives: Sequence[Life]) -> int:
    """Return the samples that one of these nodes knows of, at most."""
    return max(status.samples_total for status in (await ask_all(lives)).values() if status is not None)


async def mean_distance(lives: Sequence[Life], looks: int) -> float:
    distances = []
    for _ in range(looks):
        distances.append(await consensus_distance(lives))
        await asyncio.sleep(LOOK_S)
    return sum(distances) / len(distances)


async def apart(lives: Sequence[Life]) -> bool:
    """Tell whether these nodes hold alive nobody but each other."""
    own = frozenset(life.identity for life in lives)
    return all(status is not None and view_of(status) == own for status in (await ask_all(lives)).values())


async def until(holds: Callable[[], object], limit_s: float, what: str) -> float:
    """Wait for an answer that is true; returns the seconds it took."""
    began_s = time.monotonic()
    while not await holds():  # type: ignore[misc]
        assert time.monotonic() - began_s < limit_s, f"{what} did not come within {limit_s:g} s"
        await asyncio.sleep(LOOK_S)
    return time.monotonic() - began_s


async def test_two_halves_that_were_cut_apart_train_on_and_become_one_again(
    cluster_of: Callable[[int], Cluster],
) -> None:
    cluster = cluster_of(NODES)
    await cluster.start_all(START_LIMIT_S)
    cluster.set_pace(0.9, 0.9, LONG_S)
    lives = cluster.current
    half = len(lives) // 2
    links = [*crossing(range(half), range(half, 2 * half)), *crossing(range(half, 2 * half), range(half))]
    await agree(cluster, time.monotonic(), VIEW_LIMIT_S)

    async def warm() -> bool:
        return await total_samples(lives) > WARM_SAMPLES

    await until(warm, START_LIMIT_S, "the end of the first quick learning, in which distances fall by themselves")
    before = await mean_distance(lives, 10)

    cluster.hosts.cut(links)
    cut_s = time.monotonic()
    for side in (lives[:half], lives[half:]):
        await until(lambda side=side: apart(side), SPLIT_LIMIT_S, "each half holding the other dead")
    samples = [await total_samples(side) for side in (lives[:half], lives[half:])]
    await asyncio.sleep(max(0.0, cut_s + CUT_S - time.monotonic()))
    later = [await total_samples(side) for side in (lives[:half], lives[half:])]
    cut_apart = await consensus_distance(lives)
    assert later[0] > samples[0], "the first half did not train while it was cut off"
    assert later[1] > samples[1], "the second half did not train while it was cut off"

    cluster.hosts.heal(links)
    healed_s = time.monotonic()
    converge_s, views = await agree(cluster, healed_s, VIEW_LIMIT_S)
    assert converge_s is not None, f"{len(views)} views of the membership {VIEW_LIMIT_S:g} s after the cut was healed"

    async def close() -> bool:
        return await consensus_distance(lives) < before

    await until(close, CONSENSUS_LIMIT_S - (time.monotonic() - healed_s), f"a consensus distance below {before:.3e}")
    closed_s = time.monotonic() - healed_s
    print(f"consensus {before:.2e} -> {cut_apart:.2e}, back after {closed_s:.1f} s; one view after {converge_s:.1f} s")
    assert cut_apart > before, "the halves did not move apart: the cut put nothing to the test"
    assert not cluster.reasons

"""Halves that were cut apart become one membership again by themselves, and soon."""

from __future__ import annotations

import pytest

from adpsgd_node.core.membership import MembershipConfig, membership_preset
from adpsgd_node.sim import Life, Link, MembershipSimulation

LIMIT_S = 10.0


def cut_in_halves(
    seed: int, config: MembershipConfig, count: int, seconds: float, *, crashed_seed: bool = False
) -> tuple[MembershipSimulation, list[Life]]:
    """Let `count` members know each other, then cut them in two for so long, at 5 % loss."""
    simulation = MembershipSimulation(seed, config, Link(loss=0.05))
    lives = [simulation.start(f"n{index:02d}", ("n00",)) for index in range(count)]
    assert simulation.run_until_converged(120.0) is not None, simulation.describe()
    if crashed_seed:
        simulation.crash(lives.pop(0))
        simulation.clock.run(60.0)
    half = len(lives) // 2
    simulation.partition(lives[:half], lives[half:])
    simulation.clock.run(seconds)
    assert all(len(life.swim.live()) in (half, len(lives) - half) for life in lives), "a cut that nobody noticed"
    simulation.network.heal()
    return simulation, lives


@pytest.mark.parametrize("preset", ["lan", "local"])
@pytest.mark.parametrize("seed", range(10))
def test_four_and_four_merge_within_ten_seconds_of_the_heal(preset: str, seed: int) -> None:
    simulation, _ = cut_in_halves(seed, membership_preset(preset), 8, 60.0)
    took_s = simulation.run_until_converged(LIMIT_S, 0.1)
    assert took_s is not None, simulation.describe()


@pytest.mark.parametrize("seed", range(5))
def test_halves_merge_without_any_seed_because_the_dead_are_remembered(seed: int) -> None:
    simulation, _ = cut_in_halves(seed, MembershipConfig(), 9, 60.0, crashed_seed=True)
    assert simulation.run_until_converged(LIMIT_S, 0.1) is not None, simulation.describe()


@pytest.mark.parametrize("seed", range(5))
def test_halves_merge_through_the_seed_once_the_dead_are_forgotten(seed: int) -> None:
    simulation, lives = cut_in_halves(seed, MembershipConfig(tombstone_s=20.0), 8, 120.0)
    assert all(len(life.swim.members()) == 4 for life in lives)
    assert simulation.run_until_converged(LIMIT_S, 0.1) is not None, simulation.describe()


def test_the_dead_of_a_large_run_are_not_flooded() -> None:
    simulation = MembershipSimulation(1, MembershipConfig())
    lives = [simulation.start(f"n{index:03d}", ("n000",)) for index in range(96)]
    assert simulation.run_until_converged(120.0) is not None
    simulation.crash(lives[-1])
    simulation.clock.run(60.0)  # until everyone knows it dead
    to_the_dead = 0

    def count(source: str, target: str, transit: object = simulation.network.transit_s) -> float | None:
        nonlocal to_the_dead
        to_the_dead += target == lives[-1].address
        return transit(source, target)  # type: ignore[operator,no-any-return]

    simulation.network.transit_s = count  # type: ignore[method-assign,assignment]
    simulation.clock.run(60.0)
    assert 0 < to_the_dead / 60.0 <= 10.0, "at most a few each second, from all together"

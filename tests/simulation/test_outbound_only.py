"""Members that nobody can dial, in virtual time: judged by their calls, neither wrongly nor late."""

from __future__ import annotations

import pytest

from adpsgd_node.core.membership import membership_preset
from adpsgd_node.sim import Life, Link, MembershipSimulation


def formed(
    seed: int, dialable: int, hidden: int, preset: str = "lan", loss: float = 0.05
) -> tuple[MembershipSimulation, list[Life], list[Life]]:
    simulation = MembershipSimulation(seed, membership_preset(preset), Link(loss=loss))
    seeds = ("n00", "n01")[:dialable]
    shown = [simulation.start(f"n{index:02d}", seeds) for index in range(dialable)]
    outbound = [simulation.start(f"o{index:02d}", seeds, outbound_only=True) for index in range(hidden)]
    assert simulation.run_until_converged(120.0) is not None, simulation.describe()
    return simulation, shown, outbound


@pytest.mark.parametrize("preset", ["lan", "local"])
@pytest.mark.parametrize(("dialable", "hidden"), [(1, 2), (2, 6), (6, 3)])
def test_nobody_is_held_dead_wrongly_and_nobody_dialed(preset: str, dialable: int, hidden: int) -> None:
    simulation, _, _ = formed(1, dialable, hidden, preset)
    simulation.clock.run(300.0 * membership_preset(preset).probe_interval_s)
    assert simulation.network.lost > 0
    assert simulation.observer.false_deaths == [], simulation.describe()
    assert simulation.converged(), simulation.describe()
    assert simulation.blocked == 0, "somebody dialed an outbound-only member"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("dialable", "limit_s"), [(6, 30.0), (1, 60.0)])
def test_crashed_one_is_found_dead_by_its_silence(seed: int, dialable: int, limit_s: float) -> None:
    simulation, _, outbound = formed(seed, dialable, 3)
    simulation.clock.run(30.0)
    simulation.crash(outbound[0])
    simulation.clock.run(limit_s)
    [detected_s] = simulation.observer.detections_s()
    assert detected_s is not None, simulation.describe()
    assert detected_s >= 9.0, "before it can have missed its calls"


@pytest.mark.parametrize("seed", range(3))
def test_one_that_was_cut_off_comes_back_by_its_own_calls(seed: int) -> None:
    simulation, shown, outbound = formed(seed, 4, 2)
    cut, other = outbound
    simulation.partition([*shown, other], [cut])
    simulation.clock.run(120.0)
    assert all(cut.id not in {member.id for member in life.swim.live()} for life in shown)
    simulation.network.heal()
    assert simulation.run_until_converged(20.0) is not None, simulation.describe()
    assert simulation.blocked == 0


def test_restarted_one_takes_the_place_of_its_earlier_life() -> None:
    simulation, _, outbound = formed(1, 3, 2)
    after = simulation.restart(outbound[0], ("n00", "n01"))
    assert simulation.run_until_converged(60.0) is not None, simulation.describe()
    assert after.outbound_only
    assert simulation.blocked == 0


def test_its_share_of_messages_is_that_of_anyone() -> None:
    rates = {}
    for dialable, hidden in ((12, 0), (8, 4)):
        simulation, _, _ = formed(1, dialable, hidden)
        sent = simulation.network.sent
        simulation.clock.run(120.0)
        rates[hidden] = (simulation.network.sent - sent) / 120.0 / 12
    assert rates[4] <= 1.5 * rates[0], rates

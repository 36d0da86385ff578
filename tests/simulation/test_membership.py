"""Membership of small clusters in virtual time, with faults; a run that fails prints its seed."""

from __future__ import annotations

import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor

import pytest

from adpsgd_node.core.membership import MembershipConfig
from adpsgd_node.errors import ConfigError
from adpsgd_node.ids import Address
from adpsgd_node.sim import FaultSchedule, Life, Link, MembershipScenario, MembershipSimulation
from adpsgd_node.sim.observer import EXCUSE_S

SEEDS = ("n00", "n01", "n02")
DETECTION_LIMIT_S = 15.0
"""Within this all know of a crash, with the `lan` preset."""
LEAST_SUSPICION_S = 4.0
"""Never before it: a suspect has this time to refute."""


def formed(count: int, *, seed: int, loss: float = 0.0) -> tuple[MembershipSimulation, list[Life]]:
    """Start `count` members that all know each other."""
    simulation = MembershipSimulation(seed, link=Link(loss=loss))
    lives = [simulation.start(f"n{index:02d}", SEEDS) for index in range(count)]
    assert simulation.run_until_converged(120.0) is not None, simulation.describe()
    return simulation, lives


@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_held_dead_at_five_percent_loss(seed: int) -> None:
    simulation, _ = formed(32, seed=seed, loss=0.05)

    simulation.clock.run(60.0)

    assert simulation.network.lost > 0
    assert simulation.observer.false_deaths == [], simulation.describe()
    assert simulation.converged(), simulation.describe()


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_is_known_to_all_within_fifteen_seconds(seed: int) -> None:
    simulation, lives = formed(32, seed=seed)

    simulation.crash(lives[7])
    simulation.clock.run(DETECTION_LIMIT_S)

    [detected_s] = simulation.observer.detections_s()
    assert detected_s is not None, simulation.describe()
    assert LEAST_SUSPICION_S <= detected_s <= DETECTION_LIMIT_S, f"seed {seed}"
    assert simulation.converged(), simulation.describe()


@pytest.mark.parametrize("seed", range(3))
def test_few_survivors_of_many_crashes_do_not_take_themselves_for_the_ill_ones(seed: int) -> None:
    simulation, lives = formed(8, seed=seed)

    for life in lives[3:]:
        simulation.crash(life)
    simulation.clock.run(25.0)

    assert None not in simulation.observer.detections_s(), simulation.describe()
    assert simulation.converged(), simulation.describe()


def test_a_crash_that_not_all_know_yet_counts_as_undetected() -> None:
    simulation, lives = formed(16, seed=0)

    simulation.crash(lives[7])
    simulation.clock.run(1.0)

    assert simulation.observer.detections_s() == [None]
    assert not simulation.converged()


def test_halves_cut_apart_find_each_other_again_by_themselves() -> None:
    simulation, lives = formed(16, seed=1)

    simulation.partition(lives[:8], lives[8:])
    simulation.clock.run(60.0)
    halves = [len(life.swim.live()) for life in lives]
    simulation.network.heal()

    assert halves == [8] * 16, "a cut that nobody noticed"
    assert simulation.run_until_converged(60.0) is not None, simulation.describe()
    assert simulation.observer.false_deaths == []  # they were cut off: whoever held them dead was right to


def test_a_member_comes_back_with_a_new_boot_at_a_new_address() -> None:
    simulation, lives = formed(16, seed=2)

    simulation.crash(lives[9])
    after = simulation.restart(lives[9], SEEDS, address=Address("elsewhere:7000"))

    assert simulation.run_until_converged(60.0) is not None, simulation.describe()
    [seen] = [member for member in lives[0].swim.live() if member.name == "n09"]
    assert (seen.id, seen.address) == (after.id, "elsewhere:7000")
    [detected_s] = simulation.observer.detections_s()
    assert detected_s is not None


def test_a_stopped_process_reads_what_came_meanwhile_and_accuses_nobody() -> None:
    simulation, lives = formed(16, seed=3)

    simulation.pause(lives[5])
    simulation.clock.run(20.0)
    assert all(member.id != lives[5].id for member in lives[0].swim.live())
    assert lives[5].unread
    simulation.resume(lives[5])

    assert simulation.run_until_converged(60.0) is not None, simulation.describe()
    assert simulation.observer.false_deaths == [], simulation.describe()


def test_a_running_member_held_dead_is_counted_as_a_false_death() -> None:
    simulation, lives = formed(16, seed=4)

    for other in lives:  # nothing it says arrives, and nobody told the observer of a cut
        simulation.network.set_way(lives[5].address, other.address, Link(loss=1.0))
    simulation.clock.run(30.0)

    observers = {death.observer for death in simulation.observer.false_deaths if death.member.id == lives[5].id}
    assert observers == {life.id for life in lives if life is not lives[5]}, simulation.describe()
    # It hears no ack either, so it is wrong about the others; they are not wrong about each other.
    assert all(lives[5].id in (death.observer, death.member.id) for death in simulation.observer.false_deaths)


def test_the_excuse_of_a_member_that_was_cut_off_ends_some_time_after_the_cut() -> None:
    simulation, lives = formed(16, seed=4)

    simulation.partition(lives[:8], lives[8:])
    simulation.clock.run(5.0)
    simulation.network.heal()
    simulation.clock.run(EXCUSE_S + 1.0)
    for other in lives:
        simulation.network.set_way(lives[5].address, other.address, Link(loss=1.0))
    simulation.clock.run(40.0)

    assert lives[5].id in simulation.observer.wronged


def test_a_stopped_process_has_its_excuse_for_as_long_as_it_is_stopped_and_a_while_longer() -> None:
    simulation, lives = formed(16, seed=5)

    simulation.pause(lives[5])
    simulation.clock.run(2 * EXCUSE_S)
    assert simulation.observer.wronged == set()
    simulation.resume(lives[5])
    simulation.clock.run(EXCUSE_S + 1.0)

    assert simulation.converged(), simulation.describe()
    assert simulation.observer.excused[lives[5].id] < simulation.clock.now


@pytest.mark.parametrize(("sync_interval_s", "finds_all"), [(10.0, True), (1e6, False)])
def test_comparing_tables_finds_what_gossip_lost(sync_interval_s: float, finds_all: bool) -> None:
    starved = MembershipConfig(retransmit_multiplier=1, updates_per_packet=1, sync_interval_s=sync_interval_s)
    simulation = MembershipSimulation(0, starved, Link(loss=0.05))

    for index in range(64):
        simulation.clock.after(0.02 * index, simulation.start, f"n{index:02d}", SEEDS)
    simulation.clock.run(2.0)

    # After 64 s everybody has probed everybody, and knows them from that.
    assert (simulation.run_until_converged(45.0) is not None) is finds_all, simulation.describe()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # about 100 s of processor, on a machine that may be busy
def test_a_thousand_members_hold_nobody_dead_who_lives_and_send_no_more_than_a_hundred_do() -> None:
    scenarios = [
        MembershipScenario(members=members, loss=0.05, seconds=600.0, crash=1, seed=0) for members in (1000, 100)
    ]
    with ProcessPoolExecutor(len(scenarios), multiprocessing.get_context("spawn")) as workers:
        large, small = workers.map(MembershipScenario.run, scenarios)

    for report in (large, small):
        print(report)
        assert (report.false_deaths, report.undetected, report.converged) == (0, 0, True), report
        assert report.detection_s_max is not None, report
        assert LEAST_SUSPICION_S <= report.detection_s_max <= DETECTION_LIMIT_S, report
    assert large.messages_per_node_s == pytest.approx(small.messages_per_node_s, rel=0.1)


@pytest.mark.slow
def test_four_hundred_members_hold_nobody_dead_who_lives_and_find_five_crashes_in_time() -> None:
    scenarios = [MembershipScenario(members=400, seconds=120.0, crash=5, seed=seed) for seed in range(2)]
    with ProcessPoolExecutor(len(scenarios), multiprocessing.get_context("spawn")) as workers:
        reports = list(workers.map(MembershipScenario.run, scenarios))  # a processor each

    for seed, report in enumerate(reports):
        told = f"seed {seed}: {report}"
        assert (report.false_deaths, report.undetected, report.converged) == (0, 0, True), told
        assert report.detection_s_max is not None, told
        assert report.detection_s_max <= DETECTION_LIMIT_S, told
        assert report.joined_s is not None, told
        assert report.joined_s <= 100.0, told
        assert 3.0 < report.messages_per_node_s < 3.6, told


@pytest.mark.parametrize("seed", range(12))
def test_views_are_right_again_after_random_faults(seed: int) -> None:
    simulation, _ = formed(16, seed=seed)

    done = FaultSchedule(seconds=40.0).carry_out(simulation, random.Random(f"{seed} faults"), SEEDS)

    assert simulation.run_until_converged(120.0) is not None, "\n".join([*done, simulation.describe()])


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    def run(seed: int) -> tuple[object, ...]:
        simulation, lives = formed(16, seed=seed, loss=0.05)
        done = FaultSchedule(seconds=20.0).carry_out(simulation, random.Random(f"{seed} faults"), SEEDS)
        views = [life.swim.members() for life in simulation.running()]
        return done, simulation.network.sent, simulation.clock.events, views, len(lives)

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_a_scenario_measures_messages_detection_and_views() -> None:
    scenario = MembershipScenario(members=64, seconds=60.0, crash=1, seed=0)

    report = scenario.run()

    assert report == scenario.run()
    assert (report.undetected, report.converged) == (0, True), report
    assert report.detection_s_max is not None
    assert LEAST_SUSPICION_S <= report.detection_s_max <= DETECTION_LIMIT_S, report
    # One probe a second and its ack, and what 5 % loss adds by relays.
    assert 2.0 < report.messages_per_node_s < 5.0, report


@pytest.mark.parametrize(
    "wrong", [{"members": 1}, {"loss": 1.5}, {"seconds": 0.0}, {"preset": "moon"}, {"crash": 98}, {"members": 5000}]
)
def test_a_scenario_that_cannot_be_run_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        MembershipScenario(**wrong)  # type: ignore[arg-type]

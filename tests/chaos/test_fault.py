"""The schedule of faults is replayable, bearable, and has every kind that its hosts allow."""

from __future__ import annotations

import pytest

from chaos.fault import (
    CLOCK_STEP_S,
    CUTTING,
    DOWN,
    LEAST_UP,
    MAX_ACTIVE,
    Fault,
    FaultKind,
    Schedule,
    draw_schedule,
    possible_kinds,
)

ALL = possible_kinds(can_cut=True, can_lose=True)
SEEDS = range(20)


def during(schedule: Schedule, at_s: float) -> list[Fault]:
    return [fault for fault in schedule if fault.at_s <= at_s < fault.end_s]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_seed_gives_the_same_schedule_and_another_gives_another(seed: int) -> None:
    assert draw_schedule(seed, 8, 120, ALL) == draw_schedule(seed, 8, 120, ALL)
    assert draw_schedule(seed, 8, 120, ALL) != draw_schedule(seed + 1, 8, 120, ALL)


@pytest.mark.parametrize("count", [4, 5, 8])
@pytest.mark.parametrize("seed", SEEDS)
def test_enough_nodes_are_always_up_and_few_faults_act_at_once(seed: int, count: int) -> None:
    schedule = draw_schedule(seed, count, 300, ALL)
    assert len(schedule) > 30
    for fault in schedule:
        now = during(schedule, fault.at_s)
        down = {node for other in now if other.kind in DOWN for node in other.nodes}
        assert count - len(down) >= LEAST_UP
        assert len(now) <= MAX_ACTIVE
        assert sum(other.kind in CUTTING for other in now) <= 1
        assert fault.end_s <= 300


@pytest.mark.parametrize("seed", SEEDS)
def test_no_node_has_two_faults_of_its_own_at_once(seed: int) -> None:
    schedule = draw_schedule(seed, 8, 300, ALL)
    for fault in schedule:
        own = [other for other in during(schedule, fault.at_s) if other.kind not in CUTTING]
        hit = [node for other in own for node in other.nodes]
        assert len(hit) == len(set(hit))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_run_has_every_kind_and_one_rolling_restart_of_all_nodes(seed: int) -> None:
    schedule = draw_schedule(seed, 8, 600, ALL)
    assert {fault.kind for fault in schedule} == set(FaultKind)
    rolling = [fault for fault in schedule if fault.kind is FaultKind.ROLLING_RESTART]
    assert [fault.nodes for fault in rolling] == [tuple(range(8))]
    assert during(schedule, rolling[0].at_s) == rolling


def test_hosts_without_links_to_cut_have_no_partitions() -> None:
    kinds = possible_kinds(can_cut=False, can_lose=False)
    assert not {*kinds} & {*CUTTING, FaultKind.LOSS}
    assert {fault.kind for fault in draw_schedule(1, 8, 600, kinds)} == set(kinds)


def test_a_partition_is_between_two_groups_that_are_all_nodes() -> None:
    partitions = [f for seed in SEEDS for f in draw_schedule(seed, 6, 300, ALL) if f.kind is FaultKind.PARTITION]
    assert partitions
    for fault in partitions:
        assert sorted([*fault.nodes, *fault.others]) == list(range(6))


def test_clocks_are_stepped_forth_and_back_and_nothing_else_steps_them() -> None:
    faults = [fault for seed in SEEDS for fault in draw_schedule(seed, 6, 300, ALL)]
    assert {f.clock_s for f in faults if f.kind is FaultKind.CLOCK_STEP} == {-CLOCK_STEP_S, CLOCK_STEP_S}
    assert {f.clock_s for f in faults if f.kind is not FaultKind.CLOCK_STEP} == {0.0}

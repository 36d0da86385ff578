"""Clusters that train under random faults; afterwards nothing is lost, stuck or wrong. A failure prints its seed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adpsgd_node.errors import ConfigError
from adpsgd_node.sim import EXCHANGE_FAULTS, Campaign, ExchangeNode, FaultRun, FaultScenario, Network, transcribed
from support.faulty_node import FAULTY

SMALL = FaultScenario(nodes=8, seconds=15.0)
"""What the quick tests simulate."""

LONGER = 40.0
MUTANT_SEEDS = 12
"""A broken rule must show in one of so many seeds, with so many seconds of faults."""


def complaint(run: FaultRun, scenario: FaultScenario) -> str:
    """Say what is wrong, and how to see it again."""
    options = f"--nodes {scenario.nodes} --seconds {scenario.seconds:g} --seed {run.seed}"
    replay = f"replay: adpsgd-node simulate faults {options} --trace FILE"
    return "\n".join([f"seed {run.seed}", *run.wrong, *run.faults, replay])


@pytest.mark.parametrize("first_seed", range(0, 40, 10))
def test_every_invariant_holds_after_random_faults(first_seed: int) -> None:
    for run in Campaign(scenario=SMALL, first_seed=first_seed, seeds=10).runs():
        assert not run.wrong, complaint(run, SMALL)
        assert (run.mass_drift, run.stuck) == (0, 0)
        assert run.exchanges > 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_invariant_holds_after_a_thousand_schedules_of_random_faults_of_sixteen_nodes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "adpsgd_cli", "simulate", "faults", "--nodes=16", "--seeds=500", "--json"]
    command.append(f"--trace={tmp_path}")
    halves = [
        subprocess.Popen([*command, f"--first-seed={first}"], stdout=subprocess.PIPE, text=True) for first in (0, 500)
    ]
    ended = [half.communicate()[0] for half in halves]  # both run at once: it takes a processor several minutes
    assert [half.returncode for half in halves] == [0, 0], "\n".join(ended)  # each failing seed is named
    for said in ended:
        report = json.loads(said.splitlines()[-1])
        assert (report["seeds"], report["failed"], report["mass_drift"], report["stuck"]) == (500, 0, 0, 0)


def test_the_faults_do_disturb_exchanges_and_settling_mends_them() -> None:
    runs = list(Campaign(scenario=FaultScenario(nodes=12, interval_s=0.8), seeds=3).runs())

    assert sum(run.broken for run in runs) > 10
    assert sum(run.settled for run in runs) > 10
    done = {line.split()[1] for run in runs for line in run.faults if "left out" not in line}
    assert done == {kind.value for kind in EXCHANGE_FAULTS}


@pytest.mark.parametrize("node_type", FAULTY, ids=lambda node_type: node_type.__name__)
def test_a_node_that_breaks_a_rule_is_noticed(node_type: type[ExchangeNode]) -> None:
    scenarios = [FaultScenario(seconds=LONGER, seed=seed) for seed in range(MUTANT_SEEDS)]

    assert any(scenario.run(node_type=node_type).wrong for scenario in scenarios)


def test_views_that_stay_wrong_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "connected", lambda _self, source, target: "n0:7000" not in (source, target))

    run = FaultScenario(nodes=4, seconds=2.0).run()

    assert run.converge_s is None
    assert any("views are wrong" in line for line in run.wrong)


def test_what_a_machine_trips_over_is_the_finding_of_its_seed() -> None:
    class Trips(ExchangeNode):
        def peer_dead(self, peer: object) -> None:
            raise ZeroDivisionError("tripped")

    runs = [FaultScenario(nodes=4, seconds=LONGER, seed=seed).run(node_type=Trips) for seed in range(2)]

    assert any("ZeroDivisionError" in line and "tripped" in line for run in runs for line in run.wrong)


def test_the_same_seed_gives_the_same_history_and_another_seed_another() -> None:
    once, again, other = (transcribed(FaultScenario(nodes=4, seconds=5.0, seed=seed))[1] for seed in (1, 1, 2))

    assert once == again
    assert once != other


def test_a_campaign_sums_up_its_seeds_and_tells_of_each() -> None:
    seen: list[FaultRun] = []

    report = Campaign(scenario=FaultScenario(nodes=4, seconds=5.0), first_seed=3, seeds=4).report(seen.append)

    assert [run.seed for run in seen] == [3, 4, 5, 6]
    assert (report.seeds, report.failed, report.failures) == (4, 0, [])
    assert report.exchanges == sum(run.exchanges for run in seen)
    assert report.converge_s_max == max(run.converge_s or 0.0 for run in seen)


@pytest.mark.parametrize(
    "wrong", [{"nodes": 3}, {"seconds": 0.0}, {"loss": 1.5}, {"interval_s": 0.0}, {"resets": -1.0}]
)
def test_a_scenario_that_cannot_be_run_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        FaultScenario(**wrong)  # type: ignore[arg-type]


def test_a_campaign_without_seeds_is_refused() -> None:
    with pytest.raises(ConfigError):
        Campaign(seeds=0)

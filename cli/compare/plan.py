"""Say what is to be compared: which algorithms, under which conditions, on what task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adpsgd_cli.compare.variant import Variant
from adpsgd_cli.demo.plan import MAX_NODES, DemoPlan, Task
from adpsgd_node.daemon.settings import AlgorithmName, TopologyName
from adpsgd_node.setting import SettingError, choice

__all__ = ["BATCH", "Case", "ComparePlan", "Condition"]

BATCH = {Task.DIGITS: 32, Task.CHAR_LM: 8}
"""Samples in one step of one node, as the tasks' own defaults say."""

OWN_TASK_OPTIONS = ("--seed", "--lr", "--batch-size", "--shard", "--shards", "--shard-index", "--epochs")
"""Options of the tasks that the comparison sets itself, or reckons with."""

MAX_FACTOR = 1000.0
MAX_CASES = 1000


@dataclass(frozen=True, slots=True)
class Condition:
    """What is wrong with the last node, if anything: its computing or its link is `factor` times slower."""

    straggler: float = 1.0
    slow_link: float = 1.0

    def __str__(self) -> str:
        if self.slow_link != 1.0:
            return f"link {self.slow_link:g}x"
        return "none" if self.straggler == 1.0 else f"{self.straggler:g}x"


@dataclass(frozen=True, slots=True)
class Case:
    """One run: one row of the report."""

    algorithm: AlgorithmName
    condition: Condition
    seed: int
    variant: Variant | None = None
    """None: the algorithm as it is."""

    def __str__(self) -> str:
        return f"{self.title}, straggler {self.condition}, seed {self.seed}"

    @property
    def title(self) -> str:
        """The algorithm, and what is changed about it."""
        return choice(self.algorithm) + (f" ({self.variant.label})" if self.variant else "")

    @property
    def folder(self) -> str:
        """Where its nodes write, below the output folder."""
        variant = f"-{self.variant.slug}" if self.variant else ""
        return f"{choice(self.algorithm)}-{str(self.condition).replace(' ', '-')}-seed{self.seed}{variant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparePlan:
    """The options of one comparison."""

    nodes: int = 8
    algorithms: tuple[AlgorithmName, ...] = tuple(AlgorithmName)
    variants: tuple[Variant, ...] = ()
    """Of AD-PSGD, each with a row of its own beside the algorithms."""
    common: Variant | None = None
    """Settings that are changed in all rows."""
    stragglers: tuple[float, ...] = (1.0, 10.0)
    """Factors by which the last node computes slower, one condition each; 1: none does."""
    slow_links: tuple[float, ...] = ()
    """Factors by which the last node's link is slower, one condition each."""
    seeds: tuple[int, ...] = (0,)
    task: Task = Task.DIGITS
    samples: int = 60_000
    """Of all nodes together, the same in every run."""
    lr: Mapping[AlgorithmName, float] = field(default_factory=dict)
    """Peak learning rate of every node under these algorithms; under the others it is the task's own."""
    task_options: tuple[str, ...] = ()
    """Further options of the task's script, in all rows; it refuses those that it does not know."""
    topology: TopologyName = TopologyName.COMPLETE
    shard: str = "global"
    """How the nodes share the data: global, iid or dirichlet:ALPHA."""
    emulate_step_ms: float = 50.0
    """Least time that computing takes in a step of a node, so that few processors stand for many."""
    link_mbps: float = 0.0
    """Rate of every node's link, in megabits per second each way; 0: as fast as it is."""
    time_limit_s: float = 900.0
    """Longest time for one run; then it is stopped, and its row says that it is not complete."""
    output: Path = Path("compare-output")

    def __post_init__(self) -> None:
        if not 2 <= self.nodes <= MAX_NODES:
            raise SettingError("nodes", self.nodes, f"2 to {MAX_NODES}")
        for key, values in (("algorithms", self.algorithms), ("seeds", self.seeds), ("straggler", self.stragglers)):
            if not values or len(set(values)) != len(values):
                raise SettingError(key, ",".join(map(str, values)), "at least one, each only once")
        for key, values in (("straggler", self.stragglers), ("slow_link", self.slow_links)):
            for factor in values:
                if not 1.0 <= factor <= MAX_FACTOR:
                    raise SettingError(key, factor, f"factors from 1 (none) to {MAX_FACTOR:g}, such as none,2,10")
        if self.samples < 1:
            raise SettingError("samples", self.samples, "a whole number above 0")
        for algorithm, rate in self.lr.items():
            if algorithm not in self.algorithms:
                raise SettingError("lr", f"{choice(algorithm)}={rate:g}", "only algorithms that are compared")
            if not 0.0 < rate < math.inf:
                raise SettingError("lr", rate, "a learning rate above 0")
        for word in self.task_options:
            flag = word.partition("=")[0]
            if len(flag) > 2 and any(
                own.startswith(flag) for own in OWN_TASK_OPTIONS
            ):  # argparse takes beginnings, too
                raise SettingError(
                    "task_options", word, "no option that the comparison gives all rows, or reckons with"
                )
        if not 1.0 <= self.emulate_step_ms <= 60_000.0:
            raise SettingError("emulate_step_ms", self.emulate_step_ms, "1 to 60000")
        if self.link_mbps < 0:
            raise SettingError("link_mbps", self.link_mbps, "a number from 0")
        if not 1.0 <= self.time_limit_s <= 86_400.0:
            raise SettingError("time_limit_s", self.time_limit_s, "1 to 86400")
        self._check_variants()
        if len(tuple(self.cases())) > MAX_CASES:
            raise SettingError("seeds", len(self.seeds), f"fewer: these make more than {MAX_CASES} runs")

    def _check_variants(self) -> None:
        slugs = [variant.slug for variant in self.variants]
        given = dict(self.common.given) if self.common else {}
        plain: dict[str, object] = {"algorithm": AlgorithmName.AD_PSGD, "topology": self.topology}
        if self.common:
            self.common.check(plain)
        for variant in self.variants:
            if slugs.count(variant.slug) > 1:
                raise SettingError("variant", variant.label, "labels that differ in their letters and digits")
            variant.check(plain | given)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        slow = [Condition(straggler=factor) for factor in self.stragglers]
        return (*slow, *(Condition(slow_link=factor) for factor in self.slow_links))

    def cases(self) -> Iterator[Case]:
        """Go through all runs: the algorithms beside each other under each condition.

        All-reduce has no run with a slow link: torch.distributed has sockets of its own, which nothing here slows.
        """
        for seed in self.seeds:
            for condition in self.conditions:
                for algorithm in self.algorithms:
                    if algorithm is not AlgorithmName.ALLREDUCE or condition.slow_link == 1.0:
                        yield Case(algorithm, condition, seed)
                for variant in self.variants:
                    yield Case(AlgorithmName.AD_PSGD, condition, seed, variant)

    def ideal_samples_per_s(self, condition: Condition) -> float:
        """Return what the nodes would do if none ever waited and nothing but computing took time: n - 1 + 1/s nodes."""
        one = BATCH[self.task] / (self.emulate_step_ms / 1000.0)
        return (self.nodes - 1 + 1.0 / condition.straggler) * one

    def demo(self, case: Case) -> DemoPlan:
        """Return how one run is started."""
        straggler = f"node-{self.nodes - 1}"
        options = [
            f"--algorithm={choice(case.algorithm)}",
            f"--samples={self.samples}",
            f"--emulate-step-ms={self.emulate_step_ms:g}",
        ]
        if case.algorithm is AlgorithmName.ALLREDUCE:
            options.append(f"--world-size={self.nodes}")
        if case.algorithm is AlgorithmName.A_PSGD:
            options.append("--servers=node-0")  # never the slow one
        if case.condition.straggler != 1.0:
            options.append(f"--slow={straggler}={case.condition.straggler:g}")
        if self.link_mbps:
            options.append(f"--emulate-link-mbps={self.link_mbps:g}")
        if case.condition.slow_link != 1.0:
            options.append(f"--slow-link={straggler}={case.condition.slow_link:g}")
        if self.common:
            options += self.common.options
        if case.variant:
            options += case.variant.options  # last, so that they outweigh what stands before
        return DemoPlan(
            nodes=self.nodes,
            task=self.task,
            topology=self.topology,
            output=self.output / case.folder,
            timeout_s=self.time_limit_s,
            seed=case.seed,
            options=tuple(options),
            shard=self.shard,
            lr=self.lr.get(case.algorithm),
            task_options=self.task_options,
            in_samples=True,
        )

"""Say what training is to be simulated: nodes, algorithm, times, links, objective, failures."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.topology import TOPOLOGIES
from adpsgd_node.setting import SettingError
from adpsgd_node.sim.training.notation import StepDistribution, moments, multiples, step_distribution

__all__ = [
    "MAX_NODES",
    "Algorithm",
    "ComputeConfig",
    "FailureConfig",
    "NetworkConfig",
    "NetworkName",
    "ObjectiveConfig",
    "TrainingScenario",
]

MAX_NODES = 4096
"""Most nodes of one simulation: on a complete graph each of them has all others as neighbors."""
MAX_STEPS_TOTAL = 100_000_000
"""Most steps of all nodes together: an hour or so."""
MAX_DIMENSION = 65_536
STABLE_LEARNING_RATE = 2.0
"""The steepest direction of the objective has curvature 1: from this rate on every step leads farther away."""
GRAPHS = tuple(name for name in TOPOLOGIES if name != "custom")
"""Topologies in which only a node's place matters: simulated nodes have no names of the user's."""


class Algorithm(enum.Enum):
    """How the nodes of a simulation train together."""

    AD_PSGD = "ad-psgd"
    D_PSGD = "d-psgd"
    A_PSGD = "a-psgd"
    ALLREDUCE = "allreduce"


class NetworkName(enum.Enum):
    """A network by how far its machines are apart."""

    RACK = "rack"
    ZONE = "zone"
    REGION = "region"
    INTERNET = "internet"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeConfig:
    """How long the steps of a node take."""

    step_ms: float = 100.0
    """Mean milliseconds of a step: forward, backward and optimizer, without any communication."""
    step_distribution: str = "constant"
    """How steps vary: `constant`, `lognormal:SIGMA`, or `trace:FILE`, measured seconds as JSON, drawn at random."""
    slow: tuple[str, ...] = ()
    """Nodes whose steps take longer, as NODE=FACTOR: `n3=10` is the fourth node, ten times as slow."""

    def __post_init__(self) -> None:
        _above_zero("step_ms", self.step_ms)
        step_distribution(self.step_distribution)

    @property
    def distribution(self) -> StepDistribution:
        """How steps vary, read."""
        return step_distribution(self.step_distribution)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """What lies between the nodes, and what goes through it."""

    network: NetworkName = NetworkName.ZONE
    """Latency and bandwidth of every link: `rack` 0.05 ms and 25 Gbit/s, `zone` 0.25 ms and 10 Gbit/s,
    `region` 1 ms and 5 Gbit/s, `internet` 40 ms and 100 Mbit/s."""
    latency_ms: float | None = None
    """Milliseconds one way, in place of the network's."""
    bandwidth_mbps: float | None = None
    """Mbit/s of each node, up and down, in place of the network's."""
    links: Path | None = None
    """JSON file with `latency_ms` and `bandwidth_mbps` from each node (row) to each (column); null: as the network."""
    slow_link: tuple[str, ...] = ()
    """Nodes with less bandwidth, as NODE=FACTOR: `n3=10` is the fourth node, up and down at a tenth."""
    model_bytes: int = 100_000_000
    """Bytes of the model in fp32."""
    codec: CodecName = CodecName.FP32
    """How parameters travel: `fp32`, or `bf16` at half the bytes."""
    exchange_overhead_ms: float = 0.0
    """Milliseconds that an exchange, round, push and pull, or all-reduce takes besides what the links take."""
    overlap: float = 0.5
    """Part of a step, at its end, beside which an all-reduce can run; 0: it starts when the step is computed."""
    server_bytes_per_s: float = 2e9
    """Bytes of gradient that a parameter server applies in a second."""

    def __post_init__(self) -> None:
        if self.latency_ms is not None and self.latency_ms < 0:
            raise SettingError("latency_ms", self.latency_ms, "0 or more")
        if self.bandwidth_mbps is not None:
            _above_zero("bandwidth_mbps", self.bandwidth_mbps)
        if self.model_bytes < 0:
            raise SettingError("model_bytes", self.model_bytes, "0 or more")
        if self.exchange_overhead_ms < 0:
            raise SettingError("exchange_overhead_ms", self.exchange_overhead_ms, "0 or more")
        if not 0 <= self.overlap <= 1:
            raise SettingError("overlap", self.overlap, "a number from 0 to 1")
        _above_zero("server_bytes_per_s", self.server_bytes_per_s)

    @property
    def payload_bytes(self) -> int:
        """Bytes of the model as it travels."""
        return self.model_bytes // 2 if self.codec is CodecName.BF16 else self.model_bytes

    @property
    def overhead_s(self) -> float:
        """`exchange_overhead_ms` in seconds."""
        return self.exchange_overhead_ms / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """What is minimized: a quadratic with noisy gradients, whose loss is 1 at the start and 0 at the optimum."""

    dimension: int = 64
    """Parameters of the objective; what travels is `model_bytes` all the same."""
    condition: float = 10.0
    """How many times the steepest direction is steeper than the flattest; 1 or more."""
    noise: float = 0.5
    """Root mean square of a gradient's noise, relative to the gradient at the start."""
    skew: float = 0.0
    """How far each node's own optimum lies from that of all, relative to the way from the start; 0: same data."""
    learning_rate: float = 0.1
    """What each node multiplies its gradient with, below 2; one step of one node moves the mean by an n-th of that."""
    scale_rate: bool = False
    """Multiply the learning rate by the number of nodes, so that a sample counts as much however many there are."""
    target: float = 0.05
    """Loss of the mean of all models whose time and samples are reported."""
    stop_at_target: bool = False
    """End as soon as the target is reached; `steps` is then the most."""

    def __post_init__(self) -> None:
        if not 1 <= self.dimension <= MAX_DIMENSION:
            raise SettingError("dimension", self.dimension, f"a number from 1 to {MAX_DIMENSION}")
        if self.condition < 1:
            raise SettingError("condition", self.condition, "1 or more")
        for name, value in (("noise", self.noise), ("skew", self.skew)):
            if value < 0:
                raise SettingError(name, value, "0 or more")
        if not 0 <= self.learning_rate < STABLE_LEARNING_RATE:
            raise SettingError("learning_rate", self.learning_rate, f"0 or more, below {STABLE_LEARNING_RATE:g}")
        _above_zero("target", self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureConfig:
    """Which nodes are lost, and how soon the others know."""

    crash: tuple[str, ...] = ()
    """Nodes to lose, as NODE@SECONDS: `n3@20` is the fourth node, 20 simulated seconds after the start."""
    detection_s: float = 5.0
    """Seconds after which the others hold a lost node dead."""

    def __post_init__(self) -> None:
        if self.detection_s < 0:
            raise SettingError("detection_s", self.detection_s, "0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingScenario:
    """What is to be simulated."""

    nodes: int = 16
    """How many nodes train, 1 to 4096."""
    steps: int = 1000
    """Steps per node: training ends when all nodes together have made `nodes` times as many."""
    batch: int = 32
    """Samples of one step of one node."""
    algorithm: Algorithm = Algorithm.AD_PSGD
    """How they train together: `ad-psgd`, `d-psgd`, `a-psgd` or `allreduce`."""
    topology: str = "complete"
    """Graph of ad-psgd and d-psgd: complete, ring, exponential or hypercube."""
    exchanges_per_step: float = 1.0
    """Exchanges that an ad-psgd node starts per step when the network keeps up; above 0, at most 16."""
    servers: int = 1
    """Nodes, the first ones, that also serve a part of the parameters each in a-psgd."""
    seed: int = 0
    """Of everything random; repeats a run."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    failure: FailureConfig = field(default_factory=FailureConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise SettingError("nodes", self.nodes, f"a number from 1 to {MAX_NODES}")
        most = MAX_STEPS_TOTAL // self.nodes
        if not 1 <= self.steps <= most:
            raise SettingError("steps", self.steps, f"a number from 1 to {most} for {self.nodes} nodes")
        if self.batch < 1:
            raise SettingError("batch", self.batch, "1 or more")
        if self.topology not in GRAPHS:
            raise SettingError("topology", self.topology, f"one of {', '.join(GRAPHS)}")
        if not 0 < self.exchanges_per_step <= 16:
            raise SettingError("exchanges_per_step", self.exchanges_per_step, "a number above 0, at most 16")
        most = min(self.nodes, self.objective.dimension)
        if not 1 <= self.servers <= most:
            raise SettingError("servers", self.servers, f"a number from 1 to {most}: each serves a part")
        if self.seed < 0:
            raise SettingError("seed", self.seed, "0 or more")
        if self.learning_rate >= STABLE_LEARNING_RATE:
            expected = f"below {STABLE_LEARNING_RATE / self.nodes:g}, as it is scaled for {self.nodes} nodes"
            raise SettingError("learning_rate", self.objective.learning_rate, expected)
        _ = (self.slowdowns, self.link_slowdowns, self.crashes)  # each says what is wrong with it

    @property
    def steps_total(self) -> int:
        """Steps of all nodes together after which training ends."""
        return self.nodes * self.steps

    @property
    def learning_rate(self) -> float:
        """What each node multiplies its gradient with."""
        return self.objective.learning_rate * (self.nodes if self.objective.scale_rate else 1)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all nodes, sorted."""
        width = len(str(self.nodes - 1))
        return tuple(f"n{index:0{width}d}" for index in range(self.nodes))

    @property
    def slowdowns(self) -> dict[int, float]:
        """By how much each slow node's steps are longer."""
        return multiples("slow", self.compute.slow, self.nodes)

    @property
    def link_slowdowns(self) -> dict[int, float]:
        """By how much each slow link has less bandwidth."""
        return multiples("slow_link", self.network.slow_link, self.nodes)

    @property
    def crashes(self) -> dict[int, float]:
        """When each node to be lost is lost, in simulated seconds."""
        return moments("crash", self.failure.crash, self.nodes)


def _above_zero(name: str, value: float) -> None:
    if not value > 0:
        raise SettingError(name, value, "a number above 0")

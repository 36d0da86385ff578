"""Say what a demo is to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.daemon.settings import TopologyName
from adpsgd_node.setting import SettingError

__all__ = ["RUN", "DemoPlan", "Task"]

RUN = "demo"
"""Run id of every demo; each has sockets and ports of its own, so several do not meet."""

MAX_NODES = 64
"""Most nodes on one machine: each is two processes, one of which holds PyTorch."""

MIN_TIMEOUT_S = 1.0
MAX_TIMEOUT_S = 24 * 3600.0


class Task(enum.Enum):
    DIGITS = enum.auto()
    CHAR_LM = enum.auto()

    def __str__(self) -> str:
        return self.name.lower()

    @property
    def module(self) -> str:
        return f"adpsgd_node.tasks.{self}"

    @property
    def default_epochs(self) -> float:
        """Global epochs that show a good result in a short time."""
        return {Task.DIGITS: 20.0, Task.CHAR_LM: 0.2}[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """The options of one demo."""

    nodes: int = 4
    """How many, 1 to 64."""
    kill: bool = False
    """Kill the last node with SIGKILL half-way; needs at least two."""
    task: Task = Task.DIGITS
    epochs: float | None = None
    """Passes over the data set by all nodes together; None: the task's default."""
    topology: TopologyName = TopologyName.COMPLETE
    codec: CodecName = CodecName.FP32
    output: Path = Path("demo-output")
    """Folder for logs, models, plot."""
    timeout_s: float = 600.0
    """Longest time from start to end, in seconds."""
    seed: int = 0
    """Of the model's first weights and the nodes' random choices."""
    tolerance: float = 1e-3
    """Relative consensus distance below which two models count as equal."""
    options: tuple[str, ...] = ()
    """Further options of `adpsgd-node up`, the same for every node."""
    in_samples: bool = False
    """`options` has the target, in samples: leave the one in epochs out."""
    shard: str = "global"
    """How the nodes share the data, as the task's `--shard` takes it."""
    lr: float | None = None
    """Peak learning rate of every node; None: the task's own."""
    task_options: tuple[str, ...] = ()
    """Further options of the task's script."""

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise SettingError("nodes", self.nodes, f"1 to {MAX_NODES}")
        if self.kill and self.nodes < 2:
            raise SettingError("nodes", self.nodes, "at least 2, as --kill needs a survivor")
        if self.topology is TopologyName.CUSTOM:
            raise SettingError("topology", self.topology, "one without edges; adpsgd-node up has those")
        if self.epochs is not None and not self.epochs > 0:
            raise SettingError("epochs", self.epochs, "a number above 0")
        if not MIN_TIMEOUT_S <= self.timeout_s <= MAX_TIMEOUT_S:
            raise SettingError("timeout_s", self.timeout_s, f"{MIN_TIMEOUT_S:g} to {MAX_TIMEOUT_S:g} seconds")
        if self.seed < 0:
            raise SettingError("seed", self.seed, "a whole number from 0")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"node-{index}" for index in range(self.nodes))

    def script(self, name: str) -> tuple[str, ...]:
        """Return the command line of a node's script, as `adpsgd-node up` takes it."""
        script: tuple[str, ...] = ("-m", self.task.module, "--seed", str(self.seed))
        if self.lr is not None:
            script += ("--lr", f"{self.lr:g}")
        script += self.task_options
        if self.shard == "global":
            return script
        index = self.names.index(name)
        return (*script, "--shard", self.shard, "--shards", str(self.nodes), "--shard-index", str(index))

    @property
    def victim(self) -> str | None:
        """The node that is killed half-way."""
        return self.names[-1] if self.kill else None

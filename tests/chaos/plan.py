"""Say what one run of the suite is to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chaos.census import OLD_S, QUIET_S

__all__ = ["BATCH", "ChaosPlan"]

BATCH = 32
"""Samples in one step of one node."""

LONG_MINUTES = 3.0
"""A run at least this long also has the time to wait for an exchange whose deadline was doubled by a miss."""
MAX_NODES = 32
MAX_MINUTES = 24 * 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosPlan:
    """The options of one run."""

    nodes: int = 8
    """How many nodes, 4 to 32."""
    minutes: float = 10.0
    """Time of random faults; starting, settling and finishing come on top."""
    seed: int = 0
    """Of the faults."""
    output: Path = Path("runs/chaos")
    """Folder of the nodes' logs and models; it is emptied first."""
    target_accuracy: float = 0.97
    """Test accuracy of the averaged model that the run must reach, 0 to 1."""
    steady: bool = False
    """Keep the learning rate as it is and the images noisy, so that nodes stay equally far apart to the end."""
    steps_per_s: float = 4.0
    """Of each node, on the whole: sets how many samples the run is to take."""
    tail_s: float = 20.0
    """Seconds of training planned after the last fault."""

    def __post_init__(self) -> None:
        if not 4 <= self.nodes <= MAX_NODES:
            raise ValueError(f"NODES={self.nodes}: give 4 to {MAX_NODES}, of which 3 are always up")
        if not 0.25 <= self.minutes <= MAX_MINUTES:
            raise ValueError(f"MINUTES={self.minutes}: give 0.25 to {MAX_MINUTES:g}")

    @property
    def fault_s(self) -> float:
        return 60.0 * self.minutes

    @property
    def quiet_s(self) -> float:
        """Seconds of training after the last fault: what was begun before them and is not over then hangs."""
        return OLD_S if self.minutes >= LONG_MINUTES else QUIET_S

    @property
    def train_s(self) -> float:
        return self.fault_s + self.tail_s

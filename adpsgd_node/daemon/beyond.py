"""Hold the options that go beyond the AD-PSGD paper; docs/algorithms.md has formula, source and cost of each."""

from __future__ import annotations

from dataclasses import dataclass

from adpsgd_node.setting import SettingError

__all__ = ["BeyondConfig"]

MAX_RATE_CORRECTION = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BeyondConfig:
    """Options that go beyond the AD-PSGD paper, each off by default; the same on every node."""

    acceleration: bool = False
    """Give parameters the momentum of A2CiD2: agreement comes faster on sparse topologies, such as a ring. For ad-psgd
    and float32 models."""
    rate_correction: float = 0.0
    """Scale each node's learning rates by the mean pace of all over its own, at most so many times up or down, so that
    slow nodes' data counts as much; for shards that differ. For ad-psgd; 0: off, else 1 to 100."""

    def __post_init__(self) -> None:
        if self.rate_correction and not 1 <= self.rate_correction <= MAX_RATE_CORRECTION:
            raise SettingError("rate_correction", self.rate_correction, f"0, or 1 to {MAX_RATE_CORRECTION:g}")

    def check(self, algorithm: str) -> None:
        """Raise `SettingError` for an option that this algorithm does not have."""
        if algorithm == "ad-psgd":
            return
        for key, value, off in (
            ("acceleration", self.acceleration, "false"),
            ("rate_correction", self.rate_correction, "0"),
        ):
            if value:
                raise SettingError(key, value, f"{off}, as it is for algorithm = ad-psgd, and {algorithm} is chosen")

"""Scale the learning rates of one step as the daemon says, and put them back behind it (core.rate_correction)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adpsgd_node.plane.header import Header

__all__ = ["RateScale"]


class RateScale:
    """The learning rates of all optimizers of one node; schedules see and set them as they are without this."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], header: Header) -> None:
        self._optimizers = optimizers
        self._header = header
        self._plain: list[tuple[dict[str, Any], Any]] = []
        """Groups whose rate is scaled now, with the rate to put back."""

    def apply(self) -> None:
        """Scale the rates for the step that comes now."""
        self.put_back()  # an optimizer that raised left them scaled
        scale = self._header.rate_scale
        if scale in (0.0, 1.0):
            return
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                self._plain.append((group, group["lr"]))
                group["lr"] = group["lr"] * scale

    def put_back(self) -> None:
        """Set the rates to what they were; may be repeated."""
        for group, rate in self._plain:
            group["lr"] = rate
        self._plain = []

"""A-PSGD's steps: the optimizer makes a plain step, the servers add momentum, and the next step begins where they are.

The daemon pushes the difference the step made. So any optimizer can be used; with `torch.optim.SGD` its momentum is
left to the servers, as a worker's own would know of no other worker's gradients.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from adpsgd_node.errors import ConfigError
from adpsgd_node.plane.header import Header
from adpsgd_node.trainer.gate import Gate
from adpsgd_node.trainer.replica import Replica
from adpsgd_node.trainer.rhythm import Rhythm

__all__ = ["PushPull"]

LARGEST_MOMENTUM = 0.99999
"""It travels as a float32, and must be below 1 there."""


class PushPull(Rhythm):
    """After each step: publish, wait for what the servers make of it, take it in."""

    def __init__(
        self, header: Header, replica: Replica, gate: Gate, optimizers: Sequence[torch.optim.Optimizer]
    ) -> None:
        """Raises `ConfigError` for an optimizer whose momentum the servers cannot apply."""
        self._header = header
        self._replica = replica
        self._gate = gate
        self._optimizers = [optimizer for optimizer in optimizers if isinstance(optimizer, torch.optim.SGD)]
        self._kept: list[tuple[dict[str, Any], float]] = []
        """Parameter groups, and the momentum each had."""
        self._waited_s = 0.0
        self._leave_momentum()
        self._restore_momentum()

    def before_step(self) -> None:
        """Make the coming step without momentum, and tell what it is."""
        if self._header.mixed < self._header.step:  # pushed in an earlier life of the script, and not pulled yet
            self._pull()
        self._restore_momentum()  # an optimizer may have begun a step that it did not end
        self._leave_momentum()

    def after_step(self) -> None:
        """Publish all parameters, and now: what differs from those pulled is pushed."""
        self._restore_momentum()
        self._replica.flush()

    def between_steps(self) -> None:
        """Wait until all servers have answered, and take in what they have."""
        began = time.perf_counter()
        self._pull()
        self._waited_s += time.perf_counter() - began

    def take_waited_s(self) -> float:
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

    def stop(self) -> None:
        self._restore_momentum()

    def _pull(self) -> None:
        header = self._header
        self._gate.wait(lambda: header.mixed >= header.step)
        self._replica.catch_up()

    def _leave_momentum(self) -> None:
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        kinds = {(float(group["momentum"]), bool(group["nesterov"])) for group in groups}
        if len(kinds) > 1 or any(group["dampening"] for group in groups):
            raise ConfigError(
                "with a-psgd the servers apply the momentum of torch.optim.SGD: give all its parameter groups the same "
                "momentum and nesterov, and no dampening"
            )
        if any(momentum > LARGEST_MOMENTUM for momentum, _ in kinds):
            raise ConfigError(
                f"with a-psgd the servers apply the momentum of torch.optim.SGD: at most {LARGEST_MOMENTUM}"
            )
        momentum, nesterov = next(iter(kinds), (0.0, False))
        self._header.momentum, self._header.nesterov = momentum, int(nesterov)
        self._kept = [(group, group["momentum"]) for group in groups]
        for group in groups:
            group["momentum"] = 0.0

    def _restore_momentum(self) -> None:
        for group, momentum in self._kept:
            group["momentum"] = momentum
        self._kept = []

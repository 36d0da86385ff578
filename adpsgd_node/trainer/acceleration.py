"""Give a node's parameters the momentum of A2CiD2, as its daemon says how strong (core.topology.acceleration).

Instead of the second copy `tilde` this keeps z = tilde - x, one value per parameter, 0 at first:

    a gradient moves x and tilde alike           z stays
    exchanges move x by d, tilde by share * d    z += (share - 1) d           share = alpha~ / alpha
    time passes                                  x += c z,  z -= 2 c z        c = (1 - exp(-2 eta dt)) / 2

Time is told by exchanges: dt is how many this node took part in, over how many it does in a unit of time, and at most
1. So the momentum of a node without a network stands still, and one that steps rarely does not act at once on all that
it was told meanwhile. The sum of z over all nodes stays 0 as long as all know the same members, and so the mean of x is
moved by gradients alone; a node that dies, or joins, or whose script starts again, takes its z out of that sum.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from adpsgd_node.core.tensor import Segment
from adpsgd_node.core.topology.acceleration import mixed_part
from adpsgd_node.errors import ConfigError
from adpsgd_node.plane.header import Header
from adpsgd_node.trainer.replica import Replica

__all__ = ["Acceleration", "fold_of"]


def fold_of(replica: Replica, header: Header) -> Callable[[], None]:
    """Return how a step takes in what exchanges brought: with momentum if the daemon says so, else just that.

    Raises `ConfigError` for a model that cannot have momentum.
    """
    return Acceleration(replica, header).fold if header.momentum_share else replica.before_step


class Acceleration:
    """The momentum of one node's parameters; buffers, such as BatchNorm statistics, are averaged without."""

    def __init__(self, replica: Replica, header: Header) -> None:
        """`replica` is bound: its tensors lie where they will stay."""
        parameters = [entry for entry in replica.exchanged if entry.spec.segment is Segment.PARAMETERS]
        for entry in parameters:
            if entry.tensor.dtype is not torch.float32:
                raise ConfigError(
                    f"{entry.spec.name} is {entry.spec.dtype}, and --acceleration takes float32 parameters alone: "
                    "train such a model, with autocast if need be, or leave the option out"
                )
        self._replica = replica
        self._header = header
        self._parameters = [entry.tensor.detach() for entry in parameters]
        self._momentum = [torch.zeros_like(tensor) for tensor in self._parameters]
        self._before = [torch.empty_like(tensor) for tensor in self._parameters]
        self._exchanges = header.exchanges

    @torch.no_grad()
    def fold(self) -> None:
        """Take in what exchanges brought, and let momentum act. Never waits."""
        torch._foreach_copy_(self._before, self._parameters)
        self._replica.before_step()
        header = self._header
        if header.non_finite:  # what is not finite would stay in the momentum for ever
            torch._foreach_zero_(self._momentum)
            return
        torch._foreach_sub_(self._before, self._parameters)  # what was brought, negative
        torch._foreach_add_(self._momentum, self._before, alpha=1.0 - header.momentum_share)
        part = mixed_part(header.mixing_rate, self._passed())
        if part:
            torch._foreach_add_(self._parameters, self._momentum, alpha=part)
            torch._foreach_mul_(self._momentum, 1.0 - 2.0 * part)

    def _passed(self) -> float:
        """Return the time since the last call, in the daemon's unit."""
        before, self._exchanges = self._exchanges, self._header.exchanges
        per_unit = self._header.exchanges_per_unit
        return min(1.0, (self._exchanges - before) / per_unit) if per_unit else 0.0

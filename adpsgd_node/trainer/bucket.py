"""Pack gradients into buckets, so that few large messages travel instead of many small ones.

The buckets are those of DistributedDataParallel (Li et al. 2020, arXiv 2006.15704, section 3.2.3): parameters in
reverse order, as backward comes to them, the first bucket small so that something travels early.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["BUCKET_BYTES", "FIRST_BUCKET_BYTES", "Bucket", "plan"]

FIRST_BUCKET_BYTES = 1 << 20
BUCKET_BYTES = 25 << 20


class Bucket:
    """The gradients of some parameters side by side in one flat tensor, and room behind them for something else."""

    def __init__(
        self, parameters: Sequence[torch.Tensor], dtype: torch.dtype, device: torch.device, extra: int = 0
    ) -> None:
        """`dtype` and `device` are those in which the sum is taken; `extra`: elements behind the gradients."""
        self.parameters = tuple(parameters)
        self.filled = 0
        """Gradients of this pass that are in."""
        elements = sum(parameter.numel() for parameter in self.parameters)
        self.flat = torch.zeros(elements + extra, dtype=dtype, device=device)
        self.extra = self.flat[elements:]
        self._places: list[torch.Tensor] = []
        start = 0
        for parameter in self.parameters:
            self._places.append(self.flat[start : start + parameter.numel()].view(parameter.shape))
            start += parameter.numel()

    @property
    def full(self) -> bool:
        return self.filled == len(self.parameters)

    def put(self, ordinal: int, share: float) -> None:
        """Take in the gradient of one parameter, times `share`; zeros where there is none."""
        gradient, place = self.parameters[ordinal].grad, self._places[ordinal]
        if gradient is None:
            place.zero_()
        elif gradient.dtype is place.dtype and gradient.device == place.device:
            torch.mul(gradient, share, out=place)
        else:
            place.copy_(gradient)
            place.mul_(share)

    def give(self, ordinal: int) -> None:
        """Write what stands in the bucket over the gradient of one parameter."""
        parameter = self.parameters[ordinal]
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
        parameter.grad.copy_(self._places[ordinal])


def plan(parameters: Sequence[torch.Tensor], device: torch.device, extra: int) -> list[Bucket]:
    """Sort parameters into buckets, in the order in which these are sent; the last one has room for `extra` fp32.

    On a CPU, half-precision gradients are summed in fp32: gloo knows nothing smaller everywhere.
    """
    groups: list[tuple[torch.dtype, list[torch.Tensor]]] = []
    room = 0
    for parameter in reversed(parameters):
        exact = device.type != "cpu" or parameter.dtype is torch.float64
        dtype = parameter.dtype if exact else torch.float32
        size = parameter.numel() * dtype.itemsize
        if not groups or groups[-1][0] is not dtype or room < size:
            room = BUCKET_BYTES if groups else FIRST_BUCKET_BYTES
            groups.append((dtype, []))
        groups[-1][1].append(parameter)
        room -= size
    last = groups.pop() if groups and groups[-1][0] is torch.float32 else (torch.float32, [])
    return [*(Bucket(members, dtype, device) for dtype, members in groups), Bucket(last[1], last[0], device, extra)]

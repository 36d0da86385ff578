"""The contract between the step loop and the place where the model's exchanged tensors live.

Two implementations: `shared` (they are views into the plane) and `staged` (they live on a device, or in another dtype,
and are copied in the background). `tests/conformance/test_replica.py` runs one suite over both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from adpsgd_node.core.tensor import Segment
from adpsgd_node.errors import ModelError
from adpsgd_node.plane import Plane
from adpsgd_node.trainer.inventory import ExchangedTensor, Inventory

__all__ = ["Replica"]


class Replica(ABC):
    """The exchanged tensors of one model, tied to one plane.

    Life: `offer`, `bind`, then `before_step` and `after_step` around every optimizer step, then `flush`, `settle`,
    and `release` at the end.
    """

    def __init__(self, inventory: Inventory, plane: Plane) -> None:
        self._plane = plane
        by_name = {entry.spec.name: entry for entry in inventory.exchanged}
        self._entries: tuple[ExchangedTensor, ...] = tuple(
            by_name[placement.spec.name] for placement in plane.layout.placements
        )
        """In the order of the plane."""
        self._buffers = [entry for entry in self._entries if entry.spec.segment is Segment.BUFFERS]
        self._variances = [entry.tensor for entry in self._entries if entry.is_variance]
        self._addresses: list[int] = []
        self._inspected = 0

    @property
    def exchanged(self) -> tuple[ExchangedTensor, ...]:
        """What this holds, in the order of the plane."""
        return self._entries

    def offer(self) -> None:
        """Write the model's present values to `live`; the daemon may write over them until Go."""
        for placement, entry in zip(self._plane.layout.placements, self._entries, strict=True):
            values = entry.tensor.detach().to("cpu", torch.float32).reshape(-1)
            self._plane.live[placement.start : placement.stop] = values.numpy()

    @abstractmethod
    def bind(self, from_live: bool) -> None:
        """Move the model's tensors to where they will live; with `from_live`, take the values that stand in `live`."""

    @abstractmethod
    def before_step(self) -> None:
        """Fold what exchanges brought. Never waits."""

    @abstractmethod
    def catch_up(self) -> None:
        """Fold all that exchanges brought, waiting for copies; ahead of `before_step`, which then has nothing to do."""

    @abstractmethod
    def after_step(self) -> None:
        """Publish what the optimizer made. Never waits."""

    @abstractmethod
    def flush(self) -> None:
        """Publish the present values; returns once they stand in `live`."""

    @abstractmethod
    def settle(self) -> None:
        """Fold all there is and take the result: after the run's models agreed."""

    def release(self) -> None:
        """Give the model memory of its own again."""
        for entry in self._entries:
            entry.tensor.data = entry.tensor.data.clone()
        self._addresses = []

    def _place(self, memory: list[torch.Tensor]) -> None:
        """Point each tensor at its memory; parameter objects stay the same, so optimizers and tied uses notice nothing.

        Memory is contiguous: a model in channels_last gets its values in row order, as all nodes must agree on one.
        """
        for entry, place in zip(self._entries, memory, strict=True):
            entry.tensor.data = place
        self._addresses = [entry.tensor.data_ptr() for entry in self._entries]

    def _put_back_buffers(self) -> None:
        """Take in buffers that a forward pass replaced by new tensors (`self.mean = ...`) instead of writing them."""
        for entry in self._buffers:
            if entry.current() is not entry.tensor:
                entry.put_back()

    def _inspect(self, everything: bool = False) -> None:
        """Notice tensors that left their place, as by `model.to()` after `join`: one tensor a step, in turn."""
        count = len(self._entries)
        ordinals = range(count) if everything else (self._inspected % count,)
        self._inspected += 1
        for ordinal in ordinals:
            entry = self._entries[ordinal]
            if entry.current().data_ptr() != self._addresses[ordinal]:
                raise ModelError(
                    f"{entry.spec.name} was moved or replaced after join() (model.to(), .half(), "
                    "load_state_dict(assign=True)?), so it is no longer exchanged: do that before join()"
                )

    def _mend_variances(self) -> None:
        """Set running variances below 0 to 0.

        A delta is half the difference of two past values. When this node's variance has since fallen faster than that,
        the sum can be below 0, and evaluating would take its root. Like the optimizer's, this is a local change: what
        was exchanged and what is folded stay as they are.
        """
        if self._variances:
            torch._foreach_clamp_min_(self._variances, 0.0)

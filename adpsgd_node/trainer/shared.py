"""A CPU fp32 model whose tensors are views into `live`: publishing costs nothing, folding happens in place."""

from __future__ import annotations

import torch

from adpsgd_node.plane import Fold, Plane
from adpsgd_node.trainer.inventory import Inventory
from adpsgd_node.trainer.replica import Replica

__all__ = ["SharedReplica"]


class SharedReplica(Replica):
    def __init__(self, inventory: Inventory, plane: Plane) -> None:
        super().__init__(inventory, plane)
        self._fold = Fold(plane)

    def bind(self, from_live: bool) -> None:  # noqa: ARG002 - `live` is right in either case
        """Move the tensors into `live`, where the values to start from already stand."""
        live = self._plane.live
        self._place(
            [
                torch.from_numpy(live[placement.start : placement.stop]).view(placement.spec.shape)
                for placement in self._plane.layout.placements
            ]
        )

    def before_step(self) -> None:
        self._put_back_buffers()
        if self._fold.fold():
            self._mend_variances()

    def catch_up(self) -> None:
        self.before_step()

    def after_step(self) -> None:
        self._inspect()

    def flush(self) -> None:
        self._put_back_buffers()
        self._inspect(everything=True)

    def settle(self) -> None:
        self._fold.fold(force=True)
        self._mend_variances()

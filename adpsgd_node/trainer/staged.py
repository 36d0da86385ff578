"""A model on a device, or in a dtype other than fp32: mirrored in the plane by copies that no step waits for."""

from __future__ import annotations

import torch

from adpsgd_node.plane import Fold, Plane
from adpsgd_node.trainer.copy_engine import CopyEngine
from adpsgd_node.trainer.inventory import Inventory
from adpsgd_node.trainer.mirror import mirror_for
from adpsgd_node.trainer.replica import Replica
from adpsgd_node.trainer.staging import MAX_STAGING_BYTES, Staging

__all__ = ["StagedReplica"]


class StagedReplica(Replica):
    """Keeps one flat buffer per dtype on the device; the model's tensors are views into them.

    The fp32 buffer, `master`, has the layout of the plane and also holds what tensors of other dtypes cannot.
    """

    def __init__(
        self, inventory: Inventory, plane: Plane, engine: CopyEngine, max_staging_bytes: int = MAX_STAGING_BYTES
    ) -> None:
        super().__init__(inventory, plane)
        self._engine = engine
        self._master = torch.zeros(plane.layout.elements, dtype=torch.float32, device=inventory.device)
        self._staging = Staging(plane, self._master, engine, max_staging_bytes)
        others = {entry.tensor.dtype for entry in self._entries} - {torch.float32}
        self._mirrors = {
            dtype: mirror_for(
                self._master,
                dtype,
                [
                    placement
                    for placement, entry in zip(plane.layout.placements, self._entries, strict=True)
                    if entry.tensor.dtype is dtype
                ],
            )
            for dtype in sorted(others, key=str)
        }
        self._master_variances: list[torch.Tensor] = []

    def bind(self, from_live: bool) -> None:
        """Move the tensors into the flat buffers; without `from_live` they keep their own values to the last bit."""
        values = [entry.tensor.detach() for entry in self._entries]
        places = [
            self._mirrors[entry.tensor.dtype].place(placement)
            if entry.tensor.dtype in self._mirrors
            else self._master[placement.start : placement.stop].view(placement.spec.shape)
            for placement, entry in zip(self._plane.layout.placements, self._entries, strict=True)
        ]
        self._load()
        if not from_live:
            for place, value in zip(places, values, strict=True):
                place.copy_(value)
        self._place(places)
        self._master_variances = [
            self._master[placement.start : placement.stop]
            for placement, entry in zip(self._plane.layout.placements, self._entries, strict=True)
            if entry.is_variance
        ]

    def before_step(self) -> None:
        self._put_back_buffers()
        if self._staging.ready():
            self._take()

    def catch_up(self) -> None:
        self._put_back_buffers()
        while self._staging.arrive():
            self._take()

    def _take(self) -> None:
        self._absorb()  # a forward pass may have written to buffers: that is not to be lost under a fold
        applied = self._staging.apply()
        for mirror in self._mirrors.values():
            for one in applied:
                mirror.fold(one.start, one.stop, one.delta)
        self._mend_variances()

    def after_step(self) -> None:
        self._inspect()
        self._absorb()
        self._staging.publish()
        self._staging.fetch()

    def flush(self) -> None:
        self._put_back_buffers()
        self._inspect(everything=True)
        self._absorb()
        self._staging.flush()

    def settle(self) -> None:
        fold = Fold(self._plane)
        fold.recover()  # shows the first faces
        fold.fold(force=True)
        self._load()
        self._mend_variances()

    def release(self) -> None:
        super().release()
        self._engine.close()

    def _load(self) -> None:
        self._staging.load()
        for mirror in self._mirrors.values():
            mirror.load()

    def _absorb(self) -> None:
        for mirror in self._mirrors.values():
            mirror.absorb()

    def _mend_variances(self) -> None:
        super()._mend_variances()
        if self._mirrors and self._master_variances:
            torch._foreach_clamp_min_(self._master_variances, 0.0)

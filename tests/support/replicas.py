"""Every kind of replica, made for a test with a plane of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from adpsgd_node.plane import Layout, Plane
from adpsgd_node.trainer.copy_engine import HostCopyEngine
from adpsgd_node.trainer.inventory import take_inventory
from adpsgd_node.trainer.replica import Replica
from adpsgd_node.trainer.shared import SharedReplica
from adpsgd_node.trainer.staged import StagedReplica
from support.delayed_copy_engine import DelayedCopyEngine

KINDS = ["shared", "staged", "staged-delayed"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
CASES = [(kind, torch.float32) for kind in KINDS] + [
    (kind, dtype) for kind in KINDS if kind != "shared" for dtype in DTYPES[1:]
]


@dataclass
class Bound:
    """A model bound to a replica, as between Go and Settle."""

    plane: Plane
    replica: Replica
    engine: DelayedCopyEngine | None

    def advance(self, elements: int) -> None:
        if self.engine:
            self.engine.advance(elements)

    def round(self, update: object = None) -> None:
        """One optimizer step, with copies that complete during it."""
        self.replica.before_step()
        if callable(update):
            update()
        self.replica.after_step()
        self.advance(1 << 30)

    def view(self) -> np.ndarray:
        scratch = np.empty(self.plane.layout.elements, np.float32)
        chunks = range(len(self.plane.layout.chunks))
        return np.concatenate([self.plane.read_view(chunk, scratch).copy() for chunk in chunks])

    def place(self, name: str) -> slice:
        placement = next(p for p in self.plane.layout.placements if p.spec.name == name)
        return slice(placement.start, placement.stop)

    def add(self, name: str, value: float) -> None:
        """Put a constant delta for one tensor into the inbox, as exchanges would."""
        delta = np.zeros(self.plane.layout.elements, np.float32)
        delta[self.place(name)] = value
        for chunk, (start, stop) in enumerate(self.plane.layout.chunks):
            if delta[start:stop].any():
                self.plane.add_to_inbox(chunk, delta[start:stop])


def bind(model: nn.Module, kind: str, *, chunk_bytes: int = 64, max_staging_bytes: int = 1 << 20) -> Bound:
    inventory = take_inventory(model)
    plane = Plane.create(Layout.build(inventory.specs, chunk_bytes))
    engine = DelayedCopyEngine() if kind == "staged-delayed" else None
    replica: Replica
    if kind == "shared":
        replica = SharedReplica(inventory, plane)
    else:
        replica = StagedReplica(inventory, plane, engine or HostCopyEngine(), max_staging_bytes)
    replica.offer()
    replica.bind(from_live=False)
    return Bound(plane, replica, engine)


def vector(model: nn.Module) -> torch.Tensor:
    """All parameters and floating buffers, as fp64, in the order of `state_dict`."""
    tensors = [value for value in model.state_dict().values() if value.is_floating_point()]
    return torch.cat([value.double().reshape(-1) for value in tensors])


def whole(model: nn.Module) -> nn.Module:
    """Set parameters to small whole numbers: then every sum is exact, in every dtype."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-8, 8, parameter.shape))
    return model

"""Choose what the steps of a node do, by the algorithm that its daemon names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from adpsgd_node.errors import ConfigError
from adpsgd_node.trainer.allreduce import AllReduce
from adpsgd_node.trainer.attach import Attachment
from adpsgd_node.trainer.gate import Gate
from adpsgd_node.trainer.push_pull import PushPull
from adpsgd_node.trainer.replica import Replica
from adpsgd_node.trainer.rhythm import Rhythm
from adpsgd_node.trainer.rounds import Rounds
from adpsgd_node.trainer.world import World

__all__ = ["rhythm_of"]


def rhythm_of(
    attachment: Attachment,
    replica: Replica,
    gate: Gate,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    world: World | None,
) -> Rhythm:
    """Return the rhythm of `--algorithm`; `world`: the other trainers, for one that meets them.

    Raises `ConfigError` for one that this version does not have.
    """
    header = attachment.plane.header
    match attachment.attached.algorithm:
        case "ad-psgd":
            return Rhythm()
        case "d-psgd":
            return Rounds(header, replica, gate)
        case "a-psgd":
            return PushPull(header, replica, gate, optimizers)
        case "allreduce" if world is not None:
            return AllReduce(replica.exchanged, model, world, header)
        case other:
            raise ConfigError(f"the daemon runs algorithm {other!r}: run one version of adpsgd-node on this machine")

"""Join a run: the one call that turns a training script into a node."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import torch
from torch import nn

from adpsgd_node.errors import ConfigError, DaemonLostError, ModelError
from adpsgd_node.plane import Fold, Plane
from adpsgd_node.trainer.attach import Attachment, attach, connect
from adpsgd_node.trainer.copy_engine import CopyEngine, HostCopyEngine
from adpsgd_node.trainer.hook import plain_optimizers
from adpsgd_node.trainer.inventory import Inventory, take_inventory
from adpsgd_node.trainer.node import Node, Training
from adpsgd_node.trainer.replica import Replica
from adpsgd_node.trainer.shared import SharedReplica
from adpsgd_node.trainer.staged import StagedReplica
from adpsgd_node.trainer.state import restore
from adpsgd_node.trainer.world import World, listen
from adpsgd_node.wire.trainer import Go, Ready

__all__ = ["join"]


def join(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    *,
    batch_size: int = 1,
    dataset_size: int | None = None,
    staged: bool | None = None,
    **options: object,
) -> Node:
    """Join the run of the daemon that started this script, or start a daemon as a child; return once it may step.

    From here on every `optimizer.step()` first takes in what exchanges brought, then counts as one step of
    `batch_size` samples. Call it after the model is built, moved to its device and loaded, and keep it there. The
    parameters may be replaced by those of a live peer, a checkpoint or an earlier life of this script; the optimizers'
    state and the random numbers by those of this node's newest checkpoint.

        with adpsgd_node.join(model, optimizer, batch_size=32) as node:
            while not node.should_stop:
                loss = train_one_batch()  # ends with optimizer.step()
                node.log(loss=loss)

    batch_size: samples in one optimizer step of this node; with gradient accumulation, of all its backward passes.
    dataset_size: samples in the training set; a target in epochs (`--epochs`) needs it.
    staged: copy between model and plane instead of sharing memory; None chooses (only a CPU fp32 model can share).
    options: for a child daemon, as `adpsgd-node up` takes them: `name="a"`, `seeds="host:7400"`, `run="r"`, ...

    Raises `ModelError` naming the tensor that cannot be exchanged, `ConfigError`, `DaemonLostError`, and what kept the
    daemon from joining the run.
    """
    if batch_size < 1 or (dataset_size is not None and dataset_size < 1):
        raise ConfigError(f"batch_size {batch_size} and dataset_size {dataset_size} must be 1 or more")
    optimizers = plain_optimizers(optimizer)
    inventory = take_inventory(model)
    training = Training(model=inventory.model, optimizers=optimizers, batch_size=batch_size, dataset_size=dataset_size)
    if staged is False and not inventory.is_plain:
        raise ModelError("staged=False needs a CPU model in float32: leave staged out to have it chosen")
    link, child = connect(options)
    try:
        attachment = attach(link, child, inventory, dataset_size)
        use_staging = not inventory.is_plain if staged is None else staged
        listener = listen(attachment.attached.host) if attachment.attached.algorithm == "allreduce" else None
        replica, go = _enter(attachment, inventory, use_staging, listener)
        if go.restore:
            restore(go.restore, optimizers)
        world = None if listener is None else _meet(attachment, training, inventory.device, go, listener)
        return Node(attachment, replica, training, world)
    except BaseException as error:
        link.close()
        if child is not None:
            child.stop()
            if isinstance(error, DaemonLostError) and child.refused_its_options:
                raise ConfigError("`adpsgd-node up` refuses an option given to join(): its message is above") from None
        raise


def _enter(
    attachment: Attachment, inventory: Inventory, staged: bool, listener: socket.socket | None
) -> tuple[Replica, Go]:
    """Agree with the daemon on the parameters to start from; give what it said last, too."""
    plane, resumed = attachment.plane, attachment.attached.resumed
    Fold(plane).recover()
    replica = _replica(inventory, plane, staged)
    if not resumed:
        replica.offer()
    attachment.link.send(Ready(listener.getsockname()[1] if listener else 0))
    go = attachment.link.receive(Go, None)
    replica.bind(from_live=resumed or go.adopted)
    return replica, go


def _meet(attachment: Attachment, training: Training, device: torch.device, go: Go, listener: socket.socket) -> World:
    """Connect with the trainers of all other nodes."""
    host, header = attachment.attached.host, attachment.plane.header
    world = World(go, host, device, training.batch_size, header, attachment.link)
    world.meet(listener)
    return world


def _replica(inventory: Inventory, plane: Plane, staged: bool) -> Replica:
    if not staged:
        return SharedReplica(inventory, plane)
    return StagedReplica(inventory, plane, _copy_engine(inventory, plane))


def _copy_engine(inventory: Inventory, plane: Plane) -> CopyEngine:
    if inventory.device.type != "cuda":
        return HostCopyEngine()
    from adpsgd_node.trainer.cuda_copy import CudaCopyEngine

    return CudaCopyEngine(plane.memory, inventory.device)

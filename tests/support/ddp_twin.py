"""Run by each of two processes: train twins, one with our averages, one with those of DistributedDataParallel."""

from __future__ import annotations

import copy
import datetime
import json
import socket
import sys

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from adpsgd_node.plane.header import HEADER_BYTES, Header
from adpsgd_node.trainer.allreduce import AllReduce
from adpsgd_node.trainer.inventory import take_inventory
from adpsgd_node.trainer.world import World
from adpsgd_node.wire.trainer import Go
from support.trainer_world import HOST, QuietLink

STEPS = 3


class Net(nn.Module):
    """Some of it takes part in every pass, some on one rank only, some never; one layer alone fills a bucket."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(12, 700)
        self.wide = nn.Linear(700, 700)
        self.leave = nn.Linear(700, 3)
        self.at_times = nn.Linear(3, 3)
        self.never = nn.Linear(3, 3)

    def forward(self, batch: torch.Tensor, at_times: bool) -> torch.Tensor:
        result: torch.Tensor = self.leave(torch.relu(self.wide(torch.relu(self.enter(batch)))))
        return self.at_times(result) if at_times else result


def compare(rank: int, rhythm_of: object, passes: int, clip: float) -> float:
    """Train both twins; return the largest difference of a gradient of any step, relative to its norm."""
    torch.manual_seed(3)
    ours = Net()
    theirs = copy.deepcopy(ours)
    parallel = DistributedDataParallel(theirs, find_unused_parameters=True)
    rhythm = rhythm_of(ours)  # type: ignore[operator]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in (ours, theirs)]
    batches = torch.Generator().manual_seed(rank)
    worst = 0.0
    for step in range(STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad()
        for turn in range(passes):
            batch = torch.randn(8, 12, generator=batches)
            at_times = rank == 0 and step > 0 and turn == 0
            for model in (ours, parallel):
                model(batch, at_times).square().mean().backward()
        if clip:
            for model in (ours, theirs):
                nn.utils.clip_grad_norm_(model.parameters(), clip)
        rhythm.before_step()
        twins = zip(ours.parameters(), theirs.parameters(), strict=True)
        worst = max(worst, *(_difference(one, other) for one, other in twins))
        for optimizer in optimizers:
            optimizer.step()
        rhythm.after_step()
    rhythm.stop()
    return worst


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    if one.grad is None or other.grad is None:
        return 0.0 if one.grad is other.grad else float("inf")
    return float((one.grad - other.grad).norm() / other.grad.norm().clamp_min(1e-30))


def main() -> None:
    rank, size, port, descriptor = (int(text) for text in sys.argv[1:5])
    torch.set_num_threads(1)
    listener = socket.socket(fileno=descriptor) if rank == 0 else socket.create_server((HOST, 0))
    header = Header(np.zeros(HEADER_BYTES, np.uint8))
    go = Go(world_size=size, rank=rank, rendezvous=f"{HOST}:{port}")
    world = World(go, HOST, torch.device("cpu"), 1, header, QuietLink())  # type: ignore[arg-type]
    world.meet(listener)
    store = dist.TCPStore(HOST, int(sys.argv[5]), size, is_master=rank == 0, timeout=datetime.timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)

    def rhythm_of(model: nn.Module) -> AllReduce:
        return AllReduce(take_inventory(model).exchanged, model, world, header)

    cases = {"plain": (1, 0.0), "several passes": (2, 0.0), "clipped": (1, 0.05)}
    worst = {name: compare(rank, rhythm_of, passes, clip) for name, (passes, clip) in cases.items()}
    dist.barrier()
    world.close()
    print(json.dumps(worst), flush=True)


if __name__ == "__main__":
    main()

"""A small torch script for tests of allreduce: it logs its steps, and can be made to misbehave."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn

import adpsgd_node


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True, help="of this node's initial weights and data")
    parser.add_argument("--pause-s", type=float, default=0.0, help="after each step")
    parser.add_argument("--steps", type=int, default=0, help="take so many, whatever node.should_stop says")
    parser.add_argument("--detach-after", type=int, default=0, help="leave the run then, and live on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    model = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    answers = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    with adpsgd_node.join(model, optimizer, batch_size=8, dataset_size=800) as node, options.log.open("a") as log:
        while node.step < options.steps if options.steps else not node.should_stop:
            batch = torch.randn(8, 10)
            loss = nn.functional.cross_entropy(model(batch), (batch @ answers).argmax(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            node.log(loss=loss)
            print(json.dumps({"event": "step", "step": node.step, "loss": loss.item()}), file=log, flush=True)
            time.sleep(options.pause_s)  # computing, emulated
            if node.step == options.detach_after:
                node.detach()
                time.sleep(600)  # lives on: what ends its node must be that it detached
    print(json.dumps({"event": "finished", "step": node.step}), file=options.log.open("a"), flush=True)


if __name__ == "__main__":
    main()

"""Train a small model with an emulated computing time, and write down when each step ended.

    adpsgd-node up benchmarks/timed_steps.py --log steps.txt --step-ms 50

The time is slept, so that many nodes fit on few cores: what is measured is whether a step waits for anything else. With
`--compute` it is worked through instead, by as many matrix products as took that long at the start: then a step also
feels whoever takes its processor, its own daemon included.

The log holds one line a step, seconds of CLOCK_MONOTONIC, which all processes of a machine share; first comes the
process's id.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import torch
from torch import nn

import adpsgd_node

PRODUCT_SIZE = 192


def main() -> None:
    parser = argparse.ArgumentParser(description="Train with an emulated computing time; log the steps' times.")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--step-ms", type=float, default=50.0, help="emulated computing time of one step")
    parser.add_argument("--width", type=int, default=512, help="the model has about width^2 parameters")
    parser.add_argument("--compute", action="store_true", help="compute for that time instead of sleeping")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Linear(options.width, options.width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs = torch.randn(8, options.width)
    products = products_in(options.step_ms / 1000) if options.compute else 0
    with adpsgd_node.join(model, optimizer, batch_size=8) as node, options.log.open("w", buffering=1) as log:
        log.write(f"{os.getpid()}\n")
        while not node.should_stop:
            if options.compute:
                work(products)
            else:
                time.sleep(options.step_ms / 1000)  # computing, emulated
            loss = model(inputs).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            log.write(f"{time.monotonic():.6f}\n")
        node.detach()  # the run has no end of its own: nothing is to be agreed on


def work(products: int) -> None:
    """Multiply matrices that fit the processor's caches."""
    matrix = torch.ones(PRODUCT_SIZE, PRODUCT_SIZE) / PRODUCT_SIZE
    for _ in range(products):
        matrix = matrix @ matrix


def products_in(seconds: float) -> int:
    """Count how many products fit into `seconds` on a processor that does nothing else: the best of a few tries."""
    best_s = math.inf
    for _ in range(20):
        began = time.perf_counter()
        work(10)
        best_s = min(best_s, (time.perf_counter() - began) / 10)
    return max(1, round(seconds / best_s))


if __name__ == "__main__":
    main()

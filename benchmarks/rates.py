"""Find the learning rate that char_lm's AdamW wants, with all-reduce and with AD-PSGD, in one process.

    python benchmarks/rates.py --algorithm ad-psgd --lr 0.014 --samples 96000 --width 64 --depth 2

Steps eight replicas one after the other, at random. Each step of AD-PSGD applies a gradient that was computed before
the averagings since the node's last step (Lian et al. 2018, algorithm 1), and then averages with another replica at
random. No daemon, no network: it takes one processor, and the same numbers come out wherever the text is the same. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from adpsgd_node.tasks.char_lm import Transformer, evaluate, learning_rate, load_text, random_windows

REPLICAS = 8
BATCH = 8
"""Samples in one step of one replica."""


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    train, test = load_text(Path(sysconfig.get_path("stdlib")))
    torch.manual_seed(options.seed)
    model = Transformer(options.width, depth=options.depth)
    began_s = time.monotonic()
    run = all_reduce if options.algorithm == "allreduce" else ad_psgd
    run(model, train, options)
    accuracy, loss = evaluate(model, test)
    result = {**vars(options), "test_accuracy": accuracy, "test_loss": loss, "wall_s": time.monotonic() - began_s}
    print(json.dumps(result))


def all_reduce(model: nn.Module, text: Tensor, options: argparse.Namespace) -> None:
    """Train one replica with the batches of all."""
    trainer = Replica(model, text, generator(options.seed, 0), options.lr)
    batch = REPLICAS * BATCH
    for step in range(options.samples // batch):
        trainer.compute(batch)
        trainer.apply(step * batch / options.samples)


def ad_psgd(model: nn.Module, text: Tensor, options: argparse.Namespace) -> None:
    """Train eight replicas, and leave their average in `model`."""
    rng = random.Random(options.seed)
    replicas = [
        Replica(copy.deepcopy(model), text, generator(options.seed, number), options.lr) for number in range(REPLICAS)
    ]
    for step in range(options.samples // BATCH):
        own = rng.randrange(REPLICAS)
        replicas[own].apply(step * BATCH / options.samples)
        other = rng.choice([number for number in range(REPLICAS) if number != own])
        average([replicas[own].model, replicas[other].model])
        replicas[own].compute(BATCH)
    average([model, *(replica.model for replica in replicas)], leave_out_first=True)


class Replica:
    """A model with its optimizer, and the gradient that it has computed and not yet applied."""

    def __init__(self, model: nn.Module, text: Tensor, draws: torch.Generator, lr: float) -> None:
        self.model = model
        self._text = text
        self._draws = draws
        self._lr = lr
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1)

    def compute(self, batch: int) -> None:
        window, truth = random_windows(self._text, batch, self._draws)
        self._optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(window).flatten(0, 1), truth.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)

    def apply(self, fraction: float) -> None:
        """Take a step; the first time there is no gradient, and nothing happens."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._lr, fraction)
        self._optimizer.step()


@torch.no_grad()
def average(models: Sequence[nn.Module], *, leave_out_first: bool = False) -> None:
    """Set the parameters of all to their mean; `leave_out_first`: the first one takes the mean of the others."""
    for parameters in zip(*(model.parameters() for model in models), strict=True):
        counted = parameters[leave_out_first:]
        mean = sum(parameter.clone() for parameter in counted) / len(counted)
        for parameter in parameters:
            parameter.copy_(mean)


def generator(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 100 + number)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Find the learning rate that AdamW wants with an algorithm.")
    parser.add_argument("--algorithm", choices=["ad-psgd", "allreduce"], default="ad-psgd")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--samples", type=int, default=96_000, help="of all replicas together")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()

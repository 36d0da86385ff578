"""Cut a training set into shards, one a node: the same cut on all nodes, as it follows from the seed alone."""

from __future__ import annotations

import argparse
import enum
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = [
    "SHARD_FORMS",
    "ShardKind",
    "Sharding",
    "add_shard_options",
    "dirichlet_shards",
    "iid_shards",
    "sharding_of",
]

SHARD_FORMS = "global, iid or dirichlet:ALPHA with ALPHA above 0"
MAX_SHARDS = 4096

Counts = npt.NDArray[np.int64]
"""How often each label, in their order."""


class ShardKind(enum.Enum):
    GLOBAL = enum.auto()
    """Every node samples from the whole training set."""
    IID = enum.auto()
    """Each from a part of its own, dealt at random."""
    DIRICHLET = enum.auto()
    """Each from a part of its own, in which some labels are frequent and others rare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """Which part of the training set this node samples from."""

    kind: ShardKind = ShardKind.GLOBAL
    alpha: float = math.inf
    """Concentration of the labels: the smaller, the fewer of them a shard holds."""
    shards: int = 1
    index: int = 0

    def positions(self, labels: Tensor, seed: int) -> Tensor:
        """Return the sorted positions of this node's samples in a training set with these `labels` [size], int64."""
        match self.kind:
            case ShardKind.GLOBAL:
                return torch.arange(len(labels))
            case ShardKind.IID:
                return iid_shards(len(labels), self.shards, seed)[self.index]
            case ShardKind.DIRICHLET:
                return dirichlet_shards(labels, self.shards, self.alpha, seed)[self.index]


def add_shard_options(parser: argparse.ArgumentParser) -> None:
    """Offer `--shard`, `--shards` and `--shard-index`."""
    parser.add_argument("--shard", default="global", metavar="KIND", help=f"what this node samples from: {SHARD_FORMS}")
    parser.add_argument("--shards", type=int, default=0, help="number of shards, unless global; the same on all nodes")
    parser.add_argument("--shard-index", type=int, default=-1, help="which of them is this node's, from 0")


def sharding_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Sharding:
    """Read those options; ends the script with a usage error that names what is wrong."""
    name, colon, text = options.shard.partition(":")
    try:
        kind = ShardKind[name.upper()]
        alpha = float(text) if colon else math.inf
    except (KeyError, ValueError):
        parser.error(f"--shard {options.shard}: expected {SHARD_FORMS}")
    if bool(colon) != (kind is ShardKind.DIRICHLET) or not alpha > 0 or (colon and math.isinf(alpha)):
        parser.error(f"--shard {options.shard}: expected {SHARD_FORMS}")
    if kind is ShardKind.GLOBAL:
        return Sharding()
    if not 1 <= options.shards <= MAX_SHARDS:
        parser.error(f"--shards {options.shards}: --shard {options.shard} needs a number from 1 to {MAX_SHARDS}")
    if not 0 <= options.shard_index < options.shards:
        parser.error(f"--shard-index {options.shard_index}: give each node its own, from 0 to {options.shards - 1}")
    return Sharding(kind=kind, alpha=alpha, shards=options.shards, index=options.shard_index)


def iid_shards(size: int, shards: int, seed: int) -> list[Tensor]:
    """Deal the positions 0 to `size` at random to disjoint shards, whose sizes differ by one at most."""
    order = torch.from_numpy(_random(seed).permutation(size))
    return [part.sort().values for part in order.tensor_split(shards)]


def dirichlet_shards(labels: Tensor, shards: int, alpha: float, seed: int) -> list[Tensor]:
    """Deal positions so that each shard has its own mixture of labels, drawn from Dir(alpha * p) with p that of all.

    Hsu, Qi and Brown 2019 (arXiv 1909.06335), section 3: all shards are of one size (but for one sample), and each
    draws without replacement by its mixture; once a label is used up, the rest of the mixture is scaled to 1 again. So
    the last shards are made of what is left, whatever their mixture was. alpha -> 0: one label a shard; large: IID.
    """
    rng = _random(seed)
    size, (kinds, counts) = len(labels), torch.unique(labels, return_counts=True)
    stacks = [rng.permutation(np.flatnonzero(labels.numpy() == kind)) for kind in kinds.numpy()]
    left = counts.numpy().copy()
    concentration = np.maximum(alpha * left / size, np.finfo(np.float64).tiny)
    dealt = []
    for shard in range(shards):
        wanted = size // shards + (shard < size % shards)
        taken = _draw(rng, rng.dirichlet(concentration), left, wanted)
        parts = [stack[count - take : count] for stack, count, take in zip(stacks, left, taken, strict=True)]
        left -= taken
        dealt.append(torch.from_numpy(np.sort(np.concatenate(parts))))
    return dealt


def _draw(rng: np.random.Generator, mixture: npt.NDArray[np.float64], left: Counts, wanted: int) -> Counts:
    """Say how many of each label to take: by `mixture`, `wanted` in all, none more often than is `left` of it."""
    taken = np.zeros_like(left)
    while (missing := wanted - int(taken.sum())) > 0:
        open_ = left > taken
        weights = np.where(open_, mixture, 0.0)
        if not weights.sum() > 0:  # the mixture is of labels that are all used up: whatever is left will do
            weights = np.where(open_, left - taken, 0.0)
        taken += np.minimum(rng.multinomial(missing, weights / weights.sum()), left - taken)
    return taken


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed & 0xFFFF_FFFF_FFFF_FFFF)

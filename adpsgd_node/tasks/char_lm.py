"""Train a small transformer to predict the next byte of real text: the Python standard library's own source.

    adpsgd-node up -m adpsgd_node.tasks.char_lm --batch-size 8

The vocabulary is the 256 byte values, so a cross-entropy in bits is bits per byte. Every tenth file is held out. The
text belongs to the Python that runs: compare results of one Python version only. How long to train is the run's affair
(`adpsgd-node up --epochs/--samples`, counted over all nodes); where the run names no target, this script's own
`--epochs` ends the loop, counted on the same global progress. Leaves `result.json` and `history.jsonl` in the node's
output folder.

With `--shard` a node draws its windows from blocks of the text that no other node has. Text has no labels: for
`dirichlet:ALPHA` a block's label is the tenth of the text that it is in, ten ranges in the order of the files, so the
smaller ALPHA is, the fewer files a node sees.
"""

from __future__ import annotations

import argparse
import json
import math
import sysconfig
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import adpsgd_node
from adpsgd_node.tasks.history import HISTORY_FILE, LossHistory
from adpsgd_node.tasks.shard import Sharding, ShardKind, add_shard_options, sharding_of

__all__ = [
    "Transformer",
    "block_labels",
    "evaluate",
    "learning_rate",
    "load_text",
    "main",
    "own_blocks",
    "random_windows",
]

VOCABULARY = 256
CONTEXT = 128
"""Bytes the model looks back on; also the length of one sample."""

BLOCK_BYTES = 1024
"""What shards are made of: a window lies within one block."""
RANGES = 10
"""Parts of the text that stand for labels."""

HEADS = 4
MAX_WIDTH = 1024
MAX_DEPTH = 24

MAX_TRAIN_BYTES = 1_500_000
MAX_TEST_BYTES = 128 * 1024
HELD_OUT_EVERY = 10
WARMUP_FRACTION = 0.05
FINAL_LR_FRACTION = 0.1
TEST_BATCH = 64


def load_text(folder: Path) -> tuple[Tensor, Tensor]:
    """Load the top-level modules of `folder`, sorted: 1.5 MB to train on, 128 KB held out, as long int64 rows."""
    train, test = bytearray(), bytearray()
    for index, path in enumerate(sorted(folder.glob("*.py"))):
        (test if index % HELD_OUT_EVERY == 0 else train).extend(path.read_bytes())
    del train[MAX_TRAIN_BYTES:], test[MAX_TEST_BYTES:]
    if min(len(train), len(test)) <= CONTEXT:
        raise SystemExit(f"{folder} holds too little Python source; name a folder of .py files with --text")
    return torch.frombuffer(train, dtype=torch.uint8).long(), torch.frombuffer(test, dtype=torch.uint8).long()


class Block(nn.Module):
    """Mix over time by causal attention, then over channels by a two-layer network; each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width, bias=False)
        self.mlp_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        # [batch, time, 3 * width] -> three of [batch, heads, time, width / heads]
        qkv = self.qkv(self.norm_attention(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, time, width))
        mlp: Tensor = self.mlp_out(functional.gelu(self.mlp_in(self.norm_mlp(x))))
        return x + mlp


class Transformer(nn.Module):
    """Predict the next byte at every place of a window; about 640,000 parameters unless told otherwise."""

    def __init__(self, width: int = 128, heads: int = HEADS, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.place = nn.Parameter(torch.randn(CONTEXT, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.head.weight = self.embed.weight  # tied: what a byte means coming in is what it means going out
        for block in self.blocks:
            assert isinstance(block, Block)
            for linear in (block.qkv, block.mlp_in):
                nn.init.normal_(linear.weight, std=width**-0.5)
            # Each block begins as the identity: in a few hundred steps that learns far more than PyTorch's default.
            for linear in (block.project, block.mlp_out):
                nn.init.zeros_(linear.weight)

    def forward(self, window: Tensor) -> Tensor:
        """Map bytes [batch, time] to next-byte logits [batch, time, 256]."""
        x = self.embed(window) + self.place[: window.shape[1]]
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


def block_labels(text: Tensor) -> Tensor:
    """Label each whole block of `text` by the range that it begins in: 0 to 9, in order."""
    blocks = len(text) // BLOCK_BYTES
    return torch.arange(blocks) * RANGES // blocks


def random_windows(
    text: Tensor, batch_size: int, generator: torch.Generator, blocks: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw windows [batch, 128] of `text`, with replacement, and the bytes that follow each place.

    blocks: numbers of the blocks to draw from, each window from within one; None: from anywhere.
    """
    if blocks is None:
        starts = torch.randint(len(text) - CONTEXT, (batch_size, 1), generator=generator)
    else:
        starts = BLOCK_BYTES * blocks[torch.randint(len(blocks), (batch_size, 1), generator=generator)]
        starts += torch.randint(BLOCK_BYTES - CONTEXT, (batch_size, 1), generator=generator)
    windows = text[starts + torch.arange(CONTEXT + 1)]
    return windows[:, :-1], windows[:, 1:]


def own_blocks(text: Tensor, sharding: Sharding, seed: int) -> Tensor | None:
    """Return the numbers of the blocks that this node draws from; None: from anywhere in the text."""
    if sharding.kind is ShardKind.GLOBAL:
        return None
    labels = block_labels(text)
    if len(labels) < sharding.shards:
        raise SystemExit(f"the text has {len(labels)} blocks of {BLOCK_BYTES} bytes: choose that many --shards at most")
    return sharding.positions(labels, seed)


def learning_rate(base: float, fraction: float) -> float:
    """Warm up linearly, then follow a cosine from `base` down to 10 % of it, over the fraction 0..1 of the run."""
    if fraction < WARMUP_FRACTION:
        return base * (0.1 + 0.9 * fraction / WARMUP_FRACTION)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction)))
    return base * (FINAL_LR_FRACTION + (1.0 - FINAL_LR_FRACTION) * cosine)


@torch.no_grad()
def evaluate(model: nn.Module, text: Tensor) -> tuple[float, float]:
    """Measure next-byte accuracy (0..1) and mean cross-entropy (nats) over `text`, in windows side by side."""
    model.eval()
    count = (len(text) - 1) // CONTEXT
    windows = text[: count * CONTEXT].view(count, CONTEXT)
    following = text[1 : count * CONTEXT + 1].view(count, CONTEXT)
    correct, loss = 0, 0.0
    for start in range(0, count, TEST_BATCH):
        window, truth = windows[start : start + TEST_BATCH], following[start : start + TEST_BATCH]
        logits = model(window).flatten(0, 1)
        correct += int((logits.argmax(dim=1) == truth.flatten()).sum())
        loss += functional.cross_entropy(logits, truth.flatten(), reduction="sum").item()
    return correct / following.numel(), loss / following.numel()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="char_lm", description="Train a small transformer on Python source.")
    parser.add_argument("--batch-size", type=int, default=8, help="windows of 128 bytes per step and node")
    parser.add_argument(
        "--lr", type=float, default=2e-3, help="peak learning rate of every node, whatever their number"
    )
    parser.add_argument("--width", type=int, default=128, help="channels of the model; a multiple of its 4 heads")
    parser.add_argument("--depth", type=int, default=3, help="blocks of the model")
    parser.add_argument("--epochs", type=float, default=1, help="global epochs, where `up` was given no target")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights; must be the same on all nodes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    parser.add_argument("--text", type=Path, default=Path(sysconfig.get_path("stdlib")), help="folder of .py files")
    add_shard_options(parser)
    options = parser.parse_args(argv)
    options.sharding = sharding_of(parser, options)
    if not 1 <= options.batch_size <= 1024:
        parser.error(f"--batch-size {options.batch_size}: give a number from 1 to 1024")
    if options.width % HEADS or not HEADS <= options.width <= MAX_WIDTH:
        parser.error(f"--width {options.width}: give a multiple of {HEADS}, up to {MAX_WIDTH}")
    if not 1 <= options.depth <= MAX_DEPTH:
        parser.error(f"--depth {options.depth}: give a number from 1 to {MAX_DEPTH}")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Train until the run's target is reached, then judge the averaged model on the held-out files."""
    options = parse(argv)
    torch.set_num_threads(options.threads)
    train, test = load_text(options.text)
    blocks = own_blocks(train, options.sharding, options.seed)
    torch.manual_seed(options.seed)
    model = Transformer(options.width, depth=options.depth)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.95), weight_decay=0.1)

    # An epoch is as many windows as lie side by side in the text.
    windows = len(train) // CONTEXT
    with (
        adpsgd_node.join(model, optimizer, batch_size=options.batch_size, dataset_size=windows) as node,
        LossHistory(node.output / HISTORY_FILE, step=node.step) as history,
    ):
        target = node.progress.target_samples or options.epochs * windows
        # Nodes share the weights' seed but never the order of the data.
        generator = torch.Generator().manual_seed(options.seed + zlib.crc32(node.name.encode()))
        while not node.should_stop and node.progress.samples < target:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(options.lr, node.progress.samples / target)
            window, truth = random_windows(train, options.batch_size, generator, blocks)
            loss = functional.cross_entropy(model(window).flatten(0, 1), truth.flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            node.log(loss=loss.item())
            history.add(node.step, node.progress.samples, loss.item())

        node.finish()  # the model now holds the average that all nodes agreed on
        accuracy, test_loss = evaluate(model, test)
        bits_per_byte = test_loss / math.log(2)
        node.log(accuracy=accuracy)
        print(
            f"test bits per byte {bits_per_byte:.3f}, next-byte accuracy {accuracy:.4f} on {len(test)} held-out bytes"
        )
        result = {"test_accuracy": accuracy, "test_loss": test_loss, "bits_per_byte": bits_per_byte}
        (node.output / "result.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

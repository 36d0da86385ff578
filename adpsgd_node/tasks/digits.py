"""Train a small convnet on scikit-learn's 1,797 real handwritten digits.

    adpsgd-node up -m adpsgd_node.tasks.digits --batch-size 32

Every node starts from the same seed and draws its own batches from the same 1,437 images; with `--shard`, from a part
of them that no other node has. How long to train is the run's affair (`adpsgd-node up --epochs/--samples`, counted over
all nodes); where the run names no target, this script's own `--epochs` ends the loop, counted on the same global
progress. Leaves `result.json` and `history.jsonl` in the node's output folder.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Iterator, Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import adpsgd_node
from adpsgd_node.tasks.history import HISTORY_FILE, LossHistory
from adpsgd_node.tasks.shard import add_shard_options, sharding_of

__all__ = ["build_model", "evaluate", "learning_rate", "load_data", "main", "shuffled_batches"]

TEST_IMAGES = 360
SPLIT_SEED = 0
"""Fixed, whatever `--seed`: every node and every run holds out the same images."""

WARMUP_FRACTION = 0.05
FINAL_LR_FRACTION = 0.01


def load_data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Load train images [1437, 1, 8, 8] in 0..1, train labels, test images [360, 1, 8, 8] and test labels."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16.0
    labels = torch.tensor(digits.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return images[train], labels[train], images[test], labels[test]


def build_model(seed: int) -> nn.Module:
    """Build the convnet, about 57,000 parameters; the same seed gives the same weights on every node."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def shuffled_batches(size: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Draw index batches for ever: one shuffle of all `size` images after the other, the last short batch dropped."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(size, generator=generator)
        for start in range(0, size - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def learning_rate(base: float, fraction: float) -> float:
    """Warm up linearly, then follow a cosine from `base` down to 1 % of it, over the fraction 0..1 of the run."""
    if fraction < WARMUP_FRACTION:
        return base * (0.1 + 0.9 * fraction / WARMUP_FRACTION)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction)))
    return base * (FINAL_LR_FRACTION + (1.0 - FINAL_LR_FRACTION) * cosine)


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Measure accuracy (0..1) and mean cross-entropy (nats) with BatchNorm's averaged statistics."""
    model.eval()
    logits = model(images)
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    return accuracy.item(), functional.cross_entropy(logits, labels).item()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="digits", description="Train a small convnet on handwritten digits.")
    parser.add_argument("--batch-size", type=int, default=32, help="images per step and node")
    parser.add_argument(
        "--lr", type=float, default=0.05, help="peak learning rate of every node, whatever their number"
    )
    parser.add_argument("--epochs", type=float, default=20, help="global epochs, where `up` was given no target")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights; must be the same on all nodes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    add_shard_options(parser)
    options = parser.parse_args(argv)
    options.sharding = sharding_of(parser, options)
    if not 1 <= options.batch_size <= 1024:
        parser.error(f"--batch-size {options.batch_size}: give a number from 1 to 1024")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Train until the run's target is reached, then judge the averaged model on the held-out images."""
    options = parse(argv)
    torch.set_num_threads(options.threads)
    images, labels, test_images, test_labels = load_data()
    shard = options.sharding.positions(labels, options.seed)
    if len(shard) < options.batch_size:
        raise SystemExit(
            f"this shard has {len(shard)} images, --batch-size {options.batch_size}: choose fewer --shards"
        )
    model = build_model(options.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)

    with (
        adpsgd_node.join(model, optimizer, batch_size=options.batch_size, dataset_size=len(labels)) as node,
        LossHistory(node.output / HISTORY_FILE, step=node.step) as history,
    ):
        target = node.progress.target_samples or options.epochs * len(labels)
        # Nodes share the weights' seed but never the order of the data.
        batches = shuffled_batches(len(shard), options.batch_size, options.seed + zlib.crc32(node.name.encode()))
        while not node.should_stop and node.progress.samples < target:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(options.lr, node.progress.samples / target)
            batch = shard[next(batches)]
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            node.log(loss=loss.item())
            history.add(node.step, node.progress.samples, loss.item())

        node.finish()  # the model now holds the average that all nodes agreed on
        accuracy, test_loss = evaluate(model, test_images, test_labels)
        node.log(accuracy=accuracy)
        print(f"test accuracy {accuracy:.4f}, test loss {test_loss:.4f} on {TEST_IMAGES} held-out images")
        result = {"test_accuracy": accuracy, "test_loss": test_loss}
        (node.output / "result.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

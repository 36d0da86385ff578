"""Train the digits task at the pace that the suite sets, so that a run lasts as long as its faults.

The pace file, once it is there, says which part of the target is due when (on the machine's monotonic clock). A node
that finds the run behind that plan steps fast, one that finds it ahead slowly; nobody stands still.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
import zlib
from pathlib import Path

import torch
from torch.nn import functional

import adpsgd_node
from adpsgd_node.tasks.digits import build_model, evaluate, learning_rate, load_data, shuffled_batches

PEAK_RATE = 0.05
STEADY_RATE = 0.02
STEADY_NOISE = 0.5
"""Added to the images of a steady run, which must not come to rest: its gradients, and with them the distances between
nodes, would vanish."""
FAST_S, SLOW_S = 0.1, 2.0
"""Pauses after a step when the run is behind and when it is just ahead."""
AHEAD = 0.01
"""Part of the target by which the run may be ahead before that pause grows: faults that take longer than planned must
not find it at its end."""


class Pace:
    """How long to pause after a step."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_ns = 0
        self._begin_s, self._duration_s, self._first, self._last = 0.0, 1.0, 0.0, 0.0

    def pause_s(self, fraction: float) -> float:
        """Compare the part of the target that is done with the part that is due."""
        self._look()
        passed = min(1.0, (time.monotonic() - self._begin_s) / self._duration_s)
        ahead = fraction - (self._first + (self._last - self._first) * passed)
        return FAST_S if ahead < 0 else SLOW_S * (1 + ahead / AHEAD)

    def _look(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # no plan yet: it steps as before
            changed_ns = self._path.stat().st_mtime_ns
            if changed_ns != self._read_ns:
                plan = json.loads(self._path.read_text())
                self._begin_s, self._duration_s = plan["begin_s"], plan["duration_s"]
                self._first, self._last = plan["fractions"]
                self._read_ns = changed_ns


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pace", type=Path, required=True)
    parser.add_argument("--losses", type=Path, required=True)
    parser.add_argument("--steady", action="store_true", help="never come to rest")
    parser.add_argument("--batch-size", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, labels, test_images, test_labels = load_data()
    model = build_model(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=PEAK_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    pace = Pace(options.pace)
    losses = options.losses.open("a", buffering=1)  # a line a step, in the life's folder: no full disk there
    with losses, adpsgd_node.join(model, optimizer, batch_size=options.batch_size, dataset_size=len(labels)) as node:
        own_seed = zlib.crc32(f"{node.name} {time.time_ns()}".encode())  # each life sees the images in another order
        batches = shuffled_batches(len(labels), options.batch_size, own_seed)
        while not node.should_stop:
            fraction = node.progress.samples / max(1, node.progress.target_samples or 1)
            for group in optimizer.param_groups:
                group["lr"] = STEADY_RATE if options.steady else learning_rate(PEAK_RATE, fraction)
            batch = next(batches)
            seen = images[batch] + STEADY_NOISE * torch.randn(images[batch].shape) if options.steady else images[batch]
            loss = functional.cross_entropy(model(seen), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            node.log(loss=loss.item())
            losses.write(f"{loss.item():.5f}\n")
            time.sleep(pace.pause_s(fraction))  # so that the run lasts as long as its faults
        node.finish()
        accuracy, test_loss = evaluate(model, test_images, test_labels)
        node.log(accuracy=accuracy)
        result = {"test_accuracy": accuracy, "test_loss": test_loss}
        (node.output / "result.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

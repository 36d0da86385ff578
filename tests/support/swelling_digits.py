"""Train on digits as `adpsgd_node.tasks.digits` does, and multiply the parameters once after some steps.

python swelling_digits.py STEP FACTOR [options of the task]
"""

from __future__ import annotations

import sys
from typing import Any

import torch

import adpsgd_node
from adpsgd_node.tasks import digits


def swell(step: int, factor: float) -> None:
    """Have the next `join` watch the optimizer's steps."""
    join = adpsgd_node.join

    def join_and_watch(model: torch.nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> Any:
        node, steps = join(model, optimizer, **options), 0

        def after_step(*_: object) -> None:
            nonlocal steps
            steps += 1
            if steps == step:
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(factor)

        optimizer.register_step_post_hook(after_step)
        return node

    adpsgd_node.join = join_and_watch  # type: ignore[assignment]


if __name__ == "__main__":
    swell(int(sys.argv[1]), float(sys.argv[2]))
    digits.main(sys.argv[3:])

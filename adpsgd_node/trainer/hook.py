"""Tie a node to the optimizers' steps: a plain loop, and any framework that calls `optimizer.step()`, runs as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from adpsgd_node.errors import ConfigError

__all__ = ["StepHooks", "plain_optimizers"]


class StepHooks:
    """Calls `before` ahead of the first optimizer's step and `after` behind the last one's: one round is one step."""

    def __init__(
        self, optimizers: Sequence[torch.optim.Optimizer], before: Callable[[], None], after: Callable[[], None]
    ) -> None:
        def on_pre_step(*_: Any) -> None:
            before()

        def on_post_step(*_: Any) -> None:
            after()

        self._handles = [
            optimizers[0].register_step_pre_hook(on_pre_step),
            optimizers[-1].register_step_post_hook(on_post_step),
        ]

    def remove(self) -> None:
        """Leave the optimizers as they were; may be repeated."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def plain_optimizers(given: Any) -> list[torch.optim.Optimizer]:
    """List the torch optimizers in what `join` was given, out of the wrappers of Accelerate and Lightning.

    Raises `ConfigError` when there is none.
    """
    candidates = list(given) if isinstance(given, list | tuple) else [given]
    plain = [_unwrapped(candidate) for candidate in candidates]
    if not plain:
        raise ConfigError("join() was given no optimizer: pass the one whose step() trains the model")
    return plain


def _unwrapped(candidate: Any) -> torch.optim.Optimizer:
    if isinstance(candidate, torch.optim.Optimizer):
        return candidate
    inner = getattr(candidate, "optimizer", None)
    if isinstance(inner, torch.optim.Optimizer):
        return inner
    raise ConfigError(
        f"join() was given a {type(candidate).__name__} as optimizer: pass a torch.optim.Optimizer, or a list of them"
    )

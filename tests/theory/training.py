"""Train a fleet one update at a time, and beside it the recursion of the paper that it must follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from theory.fleet import Fleet, Worker

__all__ = ["Gradient", "Recursion", "pair_matrix", "train"]

Matrix = NDArray[np.float64]
Gradient = Callable[[int, Matrix], Matrix]
"""The stochastic gradient of update k at a point: float64 [elements]."""


def pair_matrix(count: int, one: int, other: int) -> Matrix:
    """Return W = I - (e_i - e_j)(e_i - e_j)^T / 2: two average, the others stay."""
    difference = np.zeros(count)
    difference[one], difference[other] = 1.0, -1.0
    return np.eye(count) - np.outer(difference, difference) / 2


class Recursion:
    """AD-PSGD as its paper writes it, in double precision: X_{k+1} = X_k W_k - gamma g(X^_k; xi_k, i_k).

    X^_k is the model that worker i_k had when it began its gradient (Lian et al. 2018, algorithm 1).
    `decay` is weight decay, which an optimizer takes of the parameters that it updates, hence after the average.
    """

    def __init__(self, start: Matrix, rate: float, decay: float = 0.0) -> None:
        self.models = start.copy()
        self._seen = start.copy()
        self._rate, self._decay = rate, decay

    def update(self, worker: int, partner: int | None, gradient: Callable[[Matrix], Matrix]) -> None:
        """Make one update of `worker`, which averaged with `partner` meanwhile."""
        taken = gradient(self._seen[worker])
        if partner is not None:
            self.models[[worker, partner]] = (self.models[worker] + self.models[partner]) / 2  # `pair_matrix` times X
        self.models[worker] -= self._rate * (taken + self._decay * self.models[worker])
        self._seen[worker] = self.models[worker]


def train(
    fleet: Fleet,
    workers: Sequence[Worker],
    order: Iterable[int],
    gradient: Gradient,
    paper: Recursion | None = None,
    watch: Callable[[int], None] | None = None,
) -> None:
    """Let the workers of `order` make one update each: gradient, then the exchange that ran beside it, then the step.

    watch: called with the number of each update before it is made.
    """
    for update, place in enumerate(order):
        if watch is not None:
            watch(update)
        node, worker = fleet.nodes[place], workers[place]
        taken = gradient(update, node.seen())
        partner = worker.partner
        if partner is not None:
            fleet.exchange(place, partner)
            worker.exchanged()
        node.step(taken)
        worker.stepped()
        if paper is not None:
            paper.update(place, partner, lambda point, update=update: gradient(update, point))

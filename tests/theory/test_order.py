"""AD-PSGD's order: the gradient is taken before the average and applied after it.

The daemon's end is a double in the same process; plane, merge, `join`, hooks, fold and optimizer are the product's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import adpsgd_node
from adpsgd_node.plane import Plane
from support.fake_daemon import FakeDaemon
from theory.fleet import Fleet, exchange, gossip, sgd
from theory.training import Recursion, train

RATE = 0.25
DECAY = 0.5


@dataclass
class Pair:
    """A script that has joined, with the plane of its own daemon and that of its only peer."""

    weight: nn.Parameter
    optimizer: torch.optim.Optimizer
    own: Plane
    peer: Plane

    def average(self) -> None:
        exchange(self.own, self.peer)

    def seen(self) -> np.ndarray:
        """Return what the script sees: float64 [elements]."""
        return self.weight.detach().numpy().astype(np.float64)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pair]]:
    """Give a function that joins with a model of one vector; `peer` is what the other node holds."""
    ended: list[Callable[[], None]] = []

    def join_with(start: list[float], peer: list[float], **options: float) -> Pair:
        daemon = FakeDaemon()
        monkeypatch.setenv("ADPSGD_TRAINER_FD", str(daemon.start()))
        model = nn.ParameterDict({"weight": nn.Parameter(torch.tensor(start))})
        optimizer = torch.optim.SGD(model.parameters(), **options)
        node = adpsgd_node.join(model, optimizer)
        assert daemon.plane is not None
        other = Plane.create(daemon.plane.layout)
        other.live[: len(peer)] = peer
        ended.extend([node.detach, daemon.join])
        return Pair(model["weight"], optimizer, daemon.plane, other)

    yield join_with
    for end in ended:
        end()


def test_gradient_taken_before_the_average_is_applied_after_it(joined: Callable[..., Pair]) -> None:
    """x_{k+1} = W x_k - gamma g(x_k), and neither W (x_k - gamma g(x_k)) nor W x_k - gamma g(W x_k).

    Source: Lian et al. 2018, algorithm 1: compute the gradient, average, update. The two nodes average
    while the gradient is under way. g is the gradient of |A x - b|^2 / 2, as PyTorch takes it.
    """
    matrix, target = torch.randn(3, 2), torch.randn(3)
    start, peer = [3.0, -1.0], [-5.0, 7.0]
    pair = joined(start, peer, lr=RATE)
    loss = (matrix @ pair.weight - target).square().sum() / 2
    loss.backward()
    pair.average()
    assert pair.seen().tolist() == start, "nothing moves under the script's hands before its step"
    pair.optimizer.step()

    def gradient(point: np.ndarray) -> np.ndarray:
        array = matrix.double().numpy()
        return array.T @ (array @ point - target.double().numpy())

    own, mean = np.array(start), (np.array(start) + np.array(peer)) / 2
    wanted = mean - RATE * gradient(own)
    updated_first = (own - RATE * gradient(own) + np.array(peer)) / 2
    taken_after = mean - RATE * gradient(mean)
    assert np.allclose(pair.seen(), wanted, atol=1e-5)
    assert not np.allclose(pair.seen(), updated_first, atol=0.1)
    assert not np.allclose(pair.seen(), taken_after, atol=0.1)
    assert np.allclose(pair.peer.read_view(0, np.empty(16, np.float32))[:2], mean, atol=1e-5), "it has no gradient"


def test_gradient_is_of_what_the_script_sees_though_an_average_has_come_since(joined: Callable[..., Pair]) -> None:
    """x_{k+1} = W x_k - gamma g(X^_k) with X^_k older than x_k: what came before the gradient waits for the step too.

    Source: Lian et al. 2018, assumptions (bounded staleness): X^_k is an earlier state. With f = x^2 / 2
    the gradient is the point itself: 4 here, though the node's view is 2 already when it is taken.
    """
    pair = joined([4.0], [0.0], lr=RATE)
    pair.average()
    (pair.weight.square().sum() / 2).backward()
    assert pair.weight.grad is not None
    assert pair.weight.grad.tolist() == [4.0]
    pair.optimizer.step()
    assert pair.seen().tolist() == [2.0 - RATE * 4.0]


def test_average_comes_first_when_the_optimizer_looks_at_the_parameters(joined: Callable[..., Pair]) -> None:
    """x_{k+1} = (1 - gamma lambda) W x_k - gamma g(x_k): weight decay shrinks the average, not what was there before.

    Source: Lian et al. 2018, algorithm 1: its last line updates the averaged model. All numbers are
    exact in fp32.
    """
    pair = joined([8.0], [-2.0], lr=RATE, weight_decay=DECAY)
    pair.weight.grad = torch.tensor([4.0])
    pair.average()
    pair.optimizer.step()
    assert pair.seen().tolist() == [(1 - RATE * DECAY) * 3.0 - RATE * 4.0]


def test_average_comes_first_to_the_last_bit(joined: Callable[..., Pair]) -> None:
    """fl(fl(x + d) - gamma g), not fl(fl(x - gamma g) + d): an update too small for x is not lost when d takes x to 0.

    Source: as above, in fp32 (IEEE 754): -1 + 1 is 0, and 0 - 2^-30 is kept; -1 - 2^-30 would round to -1 first.
    """
    pair = joined([-1.0], [1.0], lr=RATE)
    pair.weight.grad = torch.tensor([2.0**-28])
    pair.average()
    pair.optimizer.step()
    assert pair.seen().tolist() == [-(2.0**-30)]


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("topology", ["ring", "exponential", "complete"])
def test_a_whole_run_follows_the_recursion_of_the_paper(topology: str, decay: float) -> None:
    """X_{k+1} = (X_k W_k)(1 - gamma lambda) - gamma g(X^_k; xi_k, i_k), for 400 updates of 6 nodes in random order.

    Source: Lian et al. 2018, algorithm 1; lambda is weight decay (0: the paper's own). The policy draws
    the neighbors; the recursion is computed beside the real nodes in double precision.
    """
    count, elements, rate, updates = 6, 40, 0.05, 400
    rng = np.random.default_rng(5)
    start, curvature = rng.standard_normal((count, elements)), np.geomspace(0.5, 2.0, elements)
    noise = rng.standard_normal((updates, elements))
    fleet, paper = Fleet(start, sgd(rate, weight_decay=decay)), Recursion(start, rate, decay)
    order = rng.integers(count, size=updates).tolist()
    workers = gossip(topology, count, seed=5)
    train(fleet, workers, order, lambda update, point: curvature * point + noise[update], paper)
    assert sum(worker.started for worker in workers) == updates, "each step has started one exchange"
    assert np.abs(fleet.views() - paper.models).max() < 1e-5

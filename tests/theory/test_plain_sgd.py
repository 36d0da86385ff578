"""One node alone is plain training, bit for bit: what the product adds to a step is then nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

import adpsgd_node
from adpsgd_node.core.algorithms.ad_psgd import Stepped
from support.fake_daemon import FakeDaemon
from theory.fleet import Fleet, gossip, sgd

STEPS = 40

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    served = FakeDaemon()
    monkeypatch.setenv("ADPSGD_TRAINER_FD", str(served.start()))
    yield served
    served.join()


def fit(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    generator = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        network(torch.randn(8, 5, generator=generator)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("staged", [False, True], ids=["shared", "staged"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_node_alone_trains_as_the_script_would_without_it(daemon: FakeDaemon, name: str, staged: bool) -> None:
    """W_k = 1 for n = 1, so x_{k+1} = x_k - gamma g(x_k): plain SGD, with momentum and AdamW too.

    Source: Lian et al. 2018, algorithm 1 with n = 1. Asked for bit by bit, through join, hooks, plane and fold.
    """
    network = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 2))
    twin = copy.deepcopy(network)
    optimizer = OPTIMIZERS[name](network.parameters())
    node = adpsgd_node.join(network, optimizer, staged=staged)
    fit(network, optimizer)
    fit(twin, OPTIMIZERS[name](twin.parameters()))
    assert node.step == STEPS
    node.detach()
    for key, value in twin.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key


def test_a_node_alone_starts_no_exchange() -> None:
    """W_k = 1 for n = 1: there is nobody to average with, and nothing that the policy would wait for.

    Source: as above.
    """
    (worker,) = gossip("ring", 1, seed=0)
    for step in range(STEPS):
        assert worker.policy.handle(Stepped(1), float(step)) == ()
        assert worker.policy.deadline() is None


def test_nodes_that_are_alike_stay_alike_and_train_as_one() -> None:
    """x_i = x_j for all i, j gives W x = x, so n nodes with equal gradients are plain SGD, exchanges and all.

    Source: Lian et al. 2018, assumptions (W 1 = 1). Bit by bit: the delta of equal vectors is 0. The exchanges of a
    round come between its gradients and its steps, so that all are at the same step when they average.
    """
    rng = np.random.default_rng(4)
    start, gradients = rng.standard_normal(50), rng.standard_normal((STEPS, 50))
    fleet = Fleet(np.tile(start, (4, 1)), sgd(0.05, momentum=0.9))
    for gradient in gradients:
        for place in range(4):
            fleet.exchange(place, (place + 1) % 4)
        assert all(node.plane.unfolded(0) for node in fleet.nodes)
        for node in fleet.nodes:
            node.step(gradient)
    weight = nn.Parameter(torch.tensor(start, dtype=torch.float32))
    optimizer = torch.optim.SGD([weight], lr=0.05, momentum=0.9, foreach=False)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    for node in fleet.nodes:
        assert torch.equal(node.weight, weight)

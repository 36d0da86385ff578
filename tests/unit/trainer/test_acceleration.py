"""The momentum of a node's parameters, over every kind of replica."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adpsgd_node.core.topology.acceleration import mixed_part
from adpsgd_node.errors import ConfigError
from adpsgd_node.trainer.acceleration import Acceleration, fold_of
from support.replicas import KINDS, Bound, bind, whole

SHARE, RATE, PER_UNIT = 3.0, 0.5, 2.0


def model() -> nn.Module:
    return whole(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def accelerated(network: nn.Module, kind: str, share: float = SHARE) -> tuple[Bound, Acceleration]:
    bound = bind(network, kind)
    header = bound.plane.header
    header.mixing_rate, header.momentum_share, header.exchanges_per_unit = RATE, share, PER_UNIT
    return bound, Acceleration(bound.replica, header)


def step(bound: Bound, acceleration: Acceleration, exchanges: int = 0, rate: float = 0.0) -> None:
    """Make one step in which copies complete; the gradient is 1 everywhere."""
    bound.plane.header.exchanges += exchanges
    acceleration.fold()
    with torch.no_grad():
        for parameter in (entry.tensor for entry in bound.replica.exchanged if entry.tensor.requires_grad):
            parameter -= rate
    bound.replica.after_step()
    bound.advance(1 << 30)


def test_parameters_follow_the_formula_written_with_two_copies() -> None:
    network = model()
    bound, acceleration = accelerated(network, "shared")
    x = network[0].bias.detach().double().clone()
    tilde = x.clone()
    for count, brought, rate in [(2, 1.0, 0.0), (0, 0.0, 0.25), (1, -2.0, 0.5), (2, 0.5, 0.0), (1, 0.0, 0.0)]:
        if brought:
            bound.add("0.bias", brought)
        step(bound, acceleration, count, rate)
        x, tilde = x + brought, tilde + SHARE * brought
        part = mixed_part(RATE, count / PER_UNIT)
        x, tilde = x + part * (tilde - x) - rate, tilde + part * (x - tilde) - rate
        torch.testing.assert_close(network[0].bias.detach().double(), x, rtol=1e-6, atol=1e-6)


def test_in_the_end_momentum_has_carried_parameters_beyond_what_exchanges_brought(kind: str) -> None:
    """x -> x + d + (share - 1) d / 2: all that z held has gone half to x, half to tilde."""
    network = model()
    bound, acceleration = accelerated(network, kind)
    before = network[0].weight.detach().clone()
    bound.add("0.weight", 1.0)
    for _ in range(80):
        step(bound, acceleration, exchanges=2)
    moved = network[0].weight.detach() - before
    torch.testing.assert_close(moved, torch.full_like(moved, 1 + (SHARE - 1) / 2))


def test_others_see_what_momentum_did_as_they_see_a_step(kind: str) -> None:
    network = model()
    bound, acceleration = accelerated(network, kind)
    bound.add("0.weight", 1.0)
    for _ in range(10):
        step(bound, acceleration, exchanges=1)
    for _ in range(2):  # copies take a step or two
        step(bound, acceleration)
    torch.testing.assert_close(
        torch.from_numpy(bound.view()[bound.place("0.weight")]), network[0].weight.detach().reshape(-1)
    )


def test_without_exchanges_no_time_passes(kind: str) -> None:
    network = model()
    bound, acceleration = accelerated(network, kind)
    bound.add("0.weight", 1.0)
    for _ in range(4):
        step(bound, acceleration, exchanges=0)
    before = network[0].weight.detach().clone()
    for _ in range(10):
        step(bound, acceleration, exchanges=0)
    assert torch.equal(network[0].weight.detach(), before)


def test_one_step_is_at_most_one_unit_of_time() -> None:
    moved = []
    for exchanges in (int(PER_UNIT), 100):
        network = model()
        bound, acceleration = accelerated(network, "shared")
        before = network[0].bias.detach().clone()
        bound.add("0.bias", 1.0)
        step(bound, acceleration, exchanges)
        moved.append(network[0].bias.detach() - before)
    torch.testing.assert_close(moved[0], moved[1])


def test_statistics_of_batchnorm_are_averaged_without_momentum(kind: str) -> None:
    network = model()
    bound, acceleration = accelerated(network, kind)
    bound.add("1.running_mean", 1.0)
    for _ in range(20):
        step(bound, acceleration, exchanges=2)
    assert network[1].running_mean.tolist() == [1.0, 1.0]


def test_a_model_that_was_not_finite_and_is_again_is_not_made_so_by_its_momentum() -> None:
    network = model()
    bound, acceleration = accelerated(network, "shared")
    header, weight = bound.plane.header, network[0].weight
    healthy = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    header.non_finite = 1
    step(bound, acceleration, exchanges=2)
    with torch.no_grad():
        weight.copy_(healthy)
    header.non_finite = 0
    for _ in range(3):
        step(bound, acceleration, exchanges=2)
    assert torch.equal(weight.detach(), healthy)


def test_without_the_option_a_step_folds_and_no_more() -> None:
    bound = bind(model(), "shared")
    assert fold_of(bound.replica, bound.plane.header) == bound.replica.before_step


def test_parameters_of_another_dtype_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"0\.weight is bfloat16.*--acceleration"):
        accelerated(whole(nn.Sequential(nn.Linear(3, 2)).to(torch.bfloat16)), "staged")

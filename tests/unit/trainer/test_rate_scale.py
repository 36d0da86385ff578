from __future__ import annotations

import numpy as np
import pytest
import torch

from adpsgd_node.plane.header import HEADER_BYTES, Header
from adpsgd_node.trainer.rate_scale import RateScale


def scaled(*optimizers: torch.optim.Optimizer, by: float) -> RateScale:
    header = Header(np.zeros(HEADER_BYTES, np.uint8))
    header.rate_scale = by
    return RateScale(optimizers, header)


def rates(*optimizers: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]


def weight() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(2))


def test_the_rates_of_all_groups_are_scaled_for_the_step_and_put_back() -> None:
    groups = torch.optim.SGD([{"params": [weight()], "lr": 0.5}, {"params": [weight()], "lr": 0.25}])
    other = torch.optim.Adam([weight()], lr=0.125)
    scale = scaled(groups, other, by=4.0)
    scale.apply()
    assert rates(groups, other) == [2.0, 1.0, 0.5]
    scale.put_back()
    assert rates(groups, other) == [0.5, 0.25, 0.125]


def test_a_step_goes_as_far_as_the_scale_says() -> None:
    parameter = weight()
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    parameter.grad = torch.ones(2)
    scale = scaled(optimizer, by=3.0)
    scale.apply()
    optimizer.step()
    scale.put_back()
    assert parameter.tolist() == [-1.5, -1.5]


def test_a_rate_that_an_optimizer_which_raised_left_behind_is_not_scaled_again() -> None:
    optimizer = torch.optim.SGD([weight()], lr=0.5)
    scale = scaled(optimizer, by=4.0)
    scale.apply()
    scale.apply()
    assert rates(optimizer) == [2.0]
    scale.put_back()
    scale.put_back()
    assert rates(optimizer) == [0.5]


@pytest.mark.parametrize("by", [0.0, 1.0])
def test_without_a_scale_nothing_is_touched(by: float) -> None:
    optimizer = torch.optim.SGD([weight()], lr=torch.tensor(0.5))
    before = optimizer.param_groups[0]["lr"]
    scaled(optimizer, by=by).apply()
    assert optimizer.param_groups[0]["lr"] is before


def test_a_rate_that_is_a_tensor_comes_back_as_the_same_one() -> None:
    optimizer = torch.optim.SGD([weight()], lr=torch.tensor(0.5))
    before = optimizer.param_groups[0]["lr"]
    scale = scaled(optimizer, by=2.0)
    scale.apply()
    assert rates(optimizer) == [1.0]
    scale.put_back()
    assert optimizer.param_groups[0]["lr"] is before
    assert rates(optimizer) == [0.5]

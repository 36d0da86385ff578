"""Every kind of replica can take in all that exchanges brought at once, and publish all of it: what rounds need."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from support.replicas import KINDS, Bound, bind


def published(bound: Bound) -> np.ndarray:
    chunks = range(len(bound.plane.layout.chunks))
    return np.concatenate([bound.plane.live_chunk(chunk).copy() for chunk in chunks])


def model() -> nn.Module:
    made = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randint(-8, 8, parameter.shape))
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("room", [256, 1 << 20], ids=["few chunks at a time", "all chunks at once"])
def test_all_that_came_is_in_the_model_and_then_in_what_is_published(kind: str, room: int) -> None:
    torch.manual_seed(3)
    made = model()
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    bound = bind(made, kind, max_staging_bytes=room)
    for turn in range(1, 4):
        for name in before:
            bound.add(name, 2.0)
        bound.replica.catch_up()
        bound.replica.before_step()
        for name, value in made.named_parameters():
            assert torch.equal(value.detach(), before[name] + 2.0 * turn), (name, turn)
        with torch.no_grad():
            for value in made.parameters():
                value += 1.0
        bound.replica.after_step()
        bound.replica.flush()
        for name, value in made.named_parameters():
            before[name] += 1.0
            np.testing.assert_array_equal(published(bound)[bound.place(name)], value.detach().numpy().ravel())
        assert bound.plane.unfolded_count() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_catching_up_with_nothing_changes_nothing(kind: str) -> None:
    made = model()
    before = [value.detach().clone() for value in made.parameters()]
    bound = bind(made, kind)
    bound.replica.catch_up()
    assert all(torch.equal(value, old) for value, old in zip(made.parameters(), before, strict=True))

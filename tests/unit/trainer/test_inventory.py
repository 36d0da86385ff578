from __future__ import annotations

import pytest
import torch
from torch import nn

from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.errors import ModelError
from adpsgd_node.trainer.inventory import take_inventory


def test_parameters_and_floating_buffers_are_listed_as_the_schema_wants_them() -> None:
    model = nn.Sequential(nn.Linear(2, 3, dtype=torch.bfloat16), nn.BatchNorm1d(3))
    inventory = take_inventory(model)
    assert inventory.specs == (
        TensorSpec("0.weight", (3, 2), "bfloat16", Segment.PARAMETERS),
        TensorSpec("0.bias", (3,), "bfloat16", Segment.PARAMETERS),
        TensorSpec("1.weight", (3,), "float32", Segment.PARAMETERS),
        TensorSpec("1.bias", (3,), "float32", Segment.PARAMETERS),
        TensorSpec("1.running_mean", (3,), "float32", Segment.BUFFERS),
        TensorSpec("1.running_var", (3,), "float32", Segment.BUFFERS),
    )
    assert [entry.spec.name for entry in inventory.exchanged if entry.is_variance] == ["1.running_var"]
    assert not inventory.is_plain


def test_a_compiled_model_has_the_schema_of_the_plain_one() -> None:
    model = nn.Linear(2, 2)
    compiled = nn.Module()
    compiled._orig_mod = model  # what torch.compile returns looks like this
    assert take_inventory(compiled).specs == take_inventory(model).specs


def test_a_buffer_that_is_not_finite_stays_local(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.full((2, 2), float("-inf")))
    assert [spec.name for spec in take_inventory(model).specs] == ["weight", "bias"]
    assert "buffer mask is not finite" in caplog.text


def with_parameter(parameter: nn.Parameter) -> nn.Module:
    model = nn.Linear(2, 2)
    model.odd = parameter
    return model


def overlapping() -> nn.Module:
    model = nn.Linear(2, 2)
    model.odd = nn.Parameter(model.weight.data.view(-1)[1:3])
    return model


def unstorable() -> nn.Module:
    model = nn.Linear(2, 2)
    model.register_buffer("odd", torch.zeros(2, dtype=torch.complex128))
    return model


def frozen() -> nn.Module:
    return nn.Linear(2, 2).requires_grad_(False)


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (with_parameter(nn.Parameter(torch.zeros(2, dtype=torch.complex64))), "odd is complex64.*float32"),
        (with_parameter(nn.Parameter(torch.zeros(2, dtype=torch.float8_e4m3fn))), "odd is float8_e4m3fn"),
        (with_parameter(nn.Parameter(torch.eye(2).to_sparse())), "odd is sparse.*dense"),
        (with_parameter(nn.Parameter(torch.zeros(2, device="meta"))), "odd is on device meta"),
        (with_parameter(nn.Parameter(torch.zeros(2).as_subclass(Subclass))), "odd is a Subclass"),
        (nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)), r"1\.weight has no shape yet"),
        (overlapping(), "odd and weight share memory"),
        (unstorable(), "odd is complex128.*persistent=False"),
        (frozen(), "no parameter that requires a gradient"),
        (nn.ReLU(), "no parameter that requires a gradient"),
    ],
    ids=["complex", "float8", "sparse", "meta", "subclass", "lazy", "overlapping", "unstorable", "frozen", "empty"],
)
def test_a_model_that_cannot_be_exchanged_is_refused_and_the_tensor_named(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        take_inventory(model)


def test_neighbors_in_one_storage_do_not_overlap() -> None:
    storage = torch.zeros(6)
    model = nn.Module()
    model.first, model.second = nn.Parameter(storage[:3]), nn.Parameter(storage[3:])
    assert len(take_inventory(model).exchanged) == 2

"""One suite over every way of keeping a model in step with its plane."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from adpsgd_node.errors import ModelError
from support.replicas import CASES, Bound, bind, vector, whole

pytestmark = pytest.mark.usefixtures("seeded")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3))


class Tied(nn.Module):
    """Tied, frozen and unused parameters, an integer buffer, and one that state_dict leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.unused = nn.Parameter(torch.full((2,), 8.0))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("cache", torch.zeros(2), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.head(self.embed(tokens))


OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, eps=1e-4),
    "adamw-foreach": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, eps=1e-4, foreach=True),
    "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, lr=0.5, max_iter=4),
}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, after: Callable[[], None]) -> None:
    dtype = next(model.parameters()).dtype
    generator = torch.Generator().manual_seed(11)
    for _ in range(steps):
        inputs = torch.randn(8, 6, generator=generator).to(dtype)
        labels = torch.randint(0, 3, (8,), generator=generator)

        def closure(inputs: torch.Tensor = inputs, labels: torch.Tensor = labels) -> torch.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            return loss

        optimizer.step(closure)
        after()


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_without_exchanges_training_is_bitwise_what_it_is_alone(
    kind: str, dtype: torch.dtype, optimizer_name: str
) -> None:
    plain = network().to(dtype)
    ours = copy.deepcopy(plain)
    train(plain, OPTIMIZERS[optimizer_name](plain.parameters()), 7, lambda: None)

    bound = bind(ours, kind)
    optimizer = OPTIMIZERS[optimizer_name](ours.parameters())
    optimizer.register_step_pre_hook(lambda *_: bound.replica.before_step())
    optimizer.register_step_post_hook(lambda *_: bound.replica.after_step())
    train(ours, optimizer, 7, lambda: bound.advance(40))

    assert torch.equal(vector(ours), vector(plain))
    bound.replica.flush()
    published = [bound.view()[bound.place(name)] for name in dict(ours.named_parameters())]
    expected = [parameter.detach().float().reshape(-1).numpy() for parameter in plain.parameters()]
    assert all(np.array_equal(mine, other) for mine, other in zip(published, expected, strict=True))


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_a_delta_reaches_the_model_and_then_the_published_parameters(kind: str, dtype: torch.dtype) -> None:
    model = whole(network()).to(dtype)
    before = model[0].weight.detach().clone()
    bound = bind(model, kind)
    initial = bound.view()
    bound.add("0.weight", 2.0)
    assert np.array_equal(bound.view()[bound.place("0.weight")], initial[bound.place("0.weight")] + 2)
    for _ in range(4):
        bound.round()
        assert np.array_equal(bound.view()[bound.place("0.weight")], initial[bound.place("0.weight")] + 2)
    assert bound.plane.unfolded_count() == 0
    assert torch.equal(model[0].weight, (before.float() + 2).to(dtype))
    assert np.array_equal(bound.view()[bound.place("0.bias")], initial[bound.place("0.bias")])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_deltas_too_small_for_the_dtype_add_up(dtype: torch.dtype) -> None:
    model = nn.Linear(4, 4).to(dtype)
    with torch.no_grad():
        model.weight.fill_(3.0)
    bound = bind(model, "staged")
    for _ in range(64):
        bound.add("weight", 2.0**-12)
        bound.round()
    bound.round()
    assert torch.equal(model.weight, torch.full((4, 4), 3.0 + 2.0**-6, dtype=dtype))
    assert bound.view()[bound.place("weight")].tolist() == [3.0 + 2.0**-6] * 16


def test_steps_and_small_deltas_keep_each_other_in_bf16() -> None:
    model = nn.Linear(4, 1, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        model.weight.fill_(1.0)
    bound = bind(model, "staged")

    def step() -> None:
        with torch.no_grad():
            model.weight.mul_(2.0)

    for _ in range(3):
        bound.add("weight", 2.0**-10)  # hidden by rounding, so doubling the rounded weight does not double it
        bound.round()
    bound.round(step)
    bound.round()
    assert bound.view()[bound.place("weight")].tolist() == [2.0 + 3 * 2.0**-10] * 4


def test_deltas_smaller_than_fp32_resolves_leave_fp64_parameters_as_fine_as_they_were() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(1.0 + 2.0**-40)
    bound = bind(model, "staged")
    bound.add("weight", 0.5)
    for _ in range(3):
        bound.round()
    assert model.weight.item() == 1.5 + 2.0**-40


def test_tied_parameters_count_once_and_stay_tied(kind: str) -> None:
    model = Tied()
    bound = bind(model, kind)
    assert [placement.spec.name for placement in bound.plane.layout.placements] == ["unused", "embed.weight"]
    bound.add("embed.weight", 1.0)
    weight = model.embed.weight.detach().clone()
    for _ in range(3):
        bound.round()
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.head.weight, weight + 1)


def test_frozen_integer_and_transient_tensors_stay_local(kind: str) -> None:
    model = Tied()
    bound = bind(model, kind)
    for chunk, (start, stop) in enumerate(bound.plane.layout.chunks):
        bound.plane.add_to_inbox(chunk, np.ones(stop - start, np.float32))
    for _ in range(3):
        bound.round()
    assert model.frozen.tolist() == [1, 1, 1]
    assert model.cache.tolist() == [0, 0]
    assert model.count == 0


def test_a_parameter_without_gradient_shifts_nothing(kind: str) -> None:
    model, plain = Tied(), Tied()
    plain.load_state_dict(model.state_dict())
    bound = bind(model, kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: bound.replica.before_step())
    optimizer.register_step_post_hook(lambda *_: bound.replica.after_step())
    bound.add("unused", 0.5)
    for _ in range(3):
        for one, its in ((model, optimizer), (plain, None)):
            loss = one(torch.tensor([0, 1, 2])).square().sum()
            if its:
                its.zero_grad()
                loss.backward()
                its.step()
                bound.advance(1 << 30)
    assert model.unused.grad is None
    assert model.unused.tolist() == [8.5, 8.5]
    assert bound.view()[bound.place("unused")].tolist() == [8.5, 8.5]


def test_a_buffer_that_the_forward_pass_replaces_is_still_exchanged(kind: str) -> None:
    class Averaging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            self.mean = self.mean + value  # a new tensor
            return self.mean.sum() * self.scale

    model = Averaging()
    bound = bind(model, kind)
    for _ in range(4):
        model(torch.ones(3))
        bound.round()
    bound.replica.flush()
    assert bound.view()[bound.place("mean")].tolist() == [4, 4, 4]
    bound.add("mean", 10.0)
    for _ in range(3):
        model(torch.ones(3))
        bound.round()
    bound.replica.flush()
    assert model.mean.tolist() == [17, 17, 17]
    assert bound.view()[bound.place("mean")].tolist() == [17, 17, 17]


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_what_a_forward_pass_adds_to_a_buffer_survives_a_fold_right_after(kind: str, dtype: torch.dtype) -> None:
    model = whole(nn.BatchNorm1d(4)).to(dtype)
    bound = bind(model, kind)
    for _ in range(4):
        bound.add("running_mean", 10.0)
        model.running_mean.add_(1)  # as a forward pass does, ahead of the optimizer's step
        bound.round()
    rounds(bound, 3)  # until the last one has been fetched and applied
    bound.replica.flush()
    assert model.running_mean.tolist() == [44] * 4
    assert bound.view()[bound.place("running_mean")].tolist() == [44] * 4


def test_batchnorm_statistics_travel(kind: str) -> None:
    model = network().train()
    bound = bind(model, kind)
    bound.add("1.running_mean", 4.0)
    model(torch.zeros(4, 6))
    for _ in range(3):
        bound.round()
    fresh = network().train()
    fresh.load_state_dict({**model.state_dict(), "1.running_mean": torch.zeros(9)})
    assert torch.all(model[1].running_mean > 3)
    assert model[1].num_batches_tracked == 1
    assert not any("num_batches" in placement.spec.name for placement in bound.plane.layout.placements)


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_a_running_variance_never_falls_below_zero(kind: str, dtype: torch.dtype) -> None:
    """A delta is half the difference of past values: a variance that fell since then may be less than it takes away."""
    model = network().to(dtype)
    bound = bind(model, kind)
    bound.add("1.running_var", -7.0)
    for _ in range(4):
        bound.round()
    assert model[1].running_var.tolist() == [0.0] * 9
    assert bound.view()[bound.place("1.running_var")].tolist() == [0.0] * 9
    assert torch.isfinite(model.eval()(torch.zeros(2, 6, dtype=dtype))).all()


def test_a_model_in_channels_last_is_laid_out_as_everywhere_else(kind: str) -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    rows = model.weight.detach().reshape(-1).numpy()
    bound = bind(model, kind)
    assert np.array_equal(bound.view()[bound.place("weight")], rows)
    assert np.array_equal(model.weight.detach().reshape(-1).numpy(), rows)


def test_settle_folds_everything_and_release_gives_the_model_its_own_memory(kind: str) -> None:
    model = whole(network())
    bound = bind(model, kind)
    weight = model[0].weight.detach().clone()
    bound.round()
    bound.add("0.weight", 1.0)
    bound.replica.flush()
    bound.add("0.weight", 2.0)
    bound.plane.inbox[bound.place("0.bias")] += 5  # even where the version did not tell
    bias = model[0].bias.detach().clone()
    bound.replica.settle()
    assert torch.equal(model[0].weight, weight + 1 + 2)
    assert torch.equal(model[0].bias, bias + 5)
    assert bound.plane.faces.tolist() == [0] * len(bound.plane.layout.chunks)
    assert np.array_equal(bound.plane.live[bound.place("0.weight")], model[0].weight.detach().reshape(-1).numpy())
    bound.replica.release()
    bound.plane.live[:] = -1
    assert torch.equal(model[0].weight, weight + 1 + 2)
    assert bound.engine is None or bound.engine.closed


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_binding_from_live_takes_what_a_peer_wrote_there(kind: str, dtype: torch.dtype) -> None:
    model = network().to(dtype)
    bound = bind(model, kind)
    bound.plane.live[:] = np.arange(bound.plane.layout.elements) % 200
    bound.replica.bind(from_live=True)
    assert model[0].weight.reshape(-1).tolist() == list(range(54))
    bound.round()
    assert bound.view()[bound.place("0.weight")].tolist() == list(range(54))


def rounds(bound: Bound, count: int) -> None:
    for _ in range(count):
        bound.round()


@pytest.mark.parametrize("move", ["double", "assign"])
def test_a_model_that_is_moved_after_join_is_noticed_and_the_tensor_named(kind: str, move: str) -> None:
    model = network()
    bound = bind(model, kind)
    if move == "double":
        model.double()
    else:
        model.load_state_dict(network().state_dict(), assign=True)
    with pytest.raises(ModelError, match=r"0\.weight was moved or replaced after join"):
        bound.replica.flush()
    with pytest.raises(ModelError, match="before join"):
        rounds(bound, len(bound.plane.layout.placements))  # one tensor is looked at in each step


def test_copying_or_saving_a_bound_model_does_not_take_the_plane_along(kind: str) -> None:
    model = network()
    bound = bind(model, kind)
    twin = copy.deepcopy(model)
    bound.add("0.weight", 1.0)
    before = twin[0].weight.detach().clone()
    for _ in range(3):
        bound.round()
    assert torch.equal(twin[0].weight, before)

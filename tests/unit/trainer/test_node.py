"""The node handle against a daemon's end in the same process."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import adpsgd_node
from adpsgd_node.checkpoint.model_file import read_metadata, read_tensors
from adpsgd_node.errors import (
    ConfigError,
    DaemonLostError,
    JoinError,
    ModelError,
    PoisonedError,
    SchemaMismatchError,
    TrainerError,
    WireError,
)
from adpsgd_node.plane import Command, Layout, Plane, TrainerState
from adpsgd_node.trainer.inventory import take_inventory
from adpsgd_node.wire.trainer import Attach, Failed, Saved
from support.fake_daemon import FakeDaemon


@pytest.fixture(params=[False, True], ids=["shared", "staged"])
def staged(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Start fake daemons; each is joined at the end."""
    daemons: list[FakeDaemon] = []

    def start_one(daemon: FakeDaemon) -> FakeDaemon:
        monkeypatch.setenv("ADPSGD_TRAINER_FD", str(daemon.start()))
        daemons.append(daemon)
        return daemon

    yield start_one
    for daemon in daemons:
        daemon.join()


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(6, 4, generator=generator)).square().mean().backward()
        optimizer.step()


def test_a_run_from_join_to_finish(start, staged: bool, tmp_path: Path) -> None:
    daemon = start(FakeDaemon(output=str(tmp_path / "n0")))
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with adpsgd_node.join(network, optimizer, batch_size=6, dataset_size=12, staged=staged) as node:
        header = daemon.plane.header
        assert (node.name, node.run_id, node.output) == ("n0", "test-run", tmp_path / "n0")
        assert (header.trainer_pid, header.trainer_state) == (os.getpid(), TrainerState.STEPPING)
        train(network, optimizer, 4)
        node.log(loss=torch.tensor(0.5), accuracy=0.75)
        assert (node.step, header.step, header.samples, daemon.steps()) == (4, 4, 24, 4)
        assert (header.loss, header.accuracy, header.non_finite) == (0.5, 0.75, 0)
        assert all(header.step_seconds[1:5] > 0)
    result = node.finish()
    daemon.join()
    assert header.trainer_state is TrainerState.FINISHED
    assert result.path == tmp_path / "n0" / "model.safetensors"
    assert (result.steps_total, result.samples_total, result.consensus_distance) == (30, 960, 1e-4)
    assert daemon.frame(Attach).dataset_size == 12
    assert daemon.frame(Saved).path == str(result.path)
    metadata = read_metadata(result.path)
    assert metadata["run"] == "test-run"
    assert metadata["node"] == "n0"
    assert (metadata["steps"], metadata["samples"], metadata["consensus_distance"]) == ("30", "960", "0.0001")
    assert metadata["schema"] == daemon.plane.layout.schema.hex()
    stored = read_tensors(result.path)
    assert np.array_equal(stored["0.weight"], network[0].weight.detach().numpy())
    assert node.should_stop


def test_finish_loads_what_was_exchanged_until_the_end(start, staged: bool) -> None:
    def last_exchange(plane: Plane) -> None:
        for chunk, (first, last) in enumerate(plane.layout.chunks):
            plane.add_to_inbox(chunk, np.ones(last - first, np.float32))

    start(FakeDaemon(before_agreed=last_exchange))
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    node = adpsgd_node.join(network, optimizer, staged=staged)
    train(network, optimizer, 2)
    weight = network[0].weight.detach().clone()
    result = node.finish()
    assert torch.equal(network[0].weight, weight + 1)
    assert result.path is None
    assert node.finish() is result


def test_training_with_no_exchange_is_bitwise_what_it_is_alone(start, staged: bool) -> None:
    start(FakeDaemon())
    network = model()
    plain = copy.deepcopy(network)
    optimizer, other = (torch.optim.AdamW(one.parameters(), lr=0.01) for one in (network, plain))
    with adpsgd_node.join(network, optimizer, staged=staged):
        train(network, optimizer, 5)
    train(plain, other, 5)
    ours, theirs = network.state_dict(), plain.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_late_joiner_starts_from_its_donors_parameters(start, staged: bool) -> None:
    def adopt(plane: Plane) -> None:
        plane.live[:] = 7

    start(FakeDaemon(adopt=adopt))
    network = model()
    with adpsgd_node.join(network, torch.optim.SGD(network.parameters(), lr=0.1), staged=staged):
        assert network[0].weight.tolist() == [[7.0] * 4] * 3


def test_a_restarted_script_carries_on_from_the_plane(start, staged: bool) -> None:
    first = start(FakeDaemon())
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    node = adpsgd_node.join(network, optimizer, batch_size=2, staged=staged)
    train(network, optimizer, 3)
    weight = network[0].weight.detach().clone()
    node.detach()
    first.join()
    keeper = first.plane
    keeper.header.non_finite = 1

    start(FakeDaemon(plane=keeper))
    again = model()
    optimizer = torch.optim.SGD(again.parameters(), lr=0.1)
    with adpsgd_node.join(again, optimizer, batch_size=2, staged=staged) as node:
        assert torch.equal(again[0].weight, weight)
        assert (node.step, keeper.header.non_finite) == (3, 0)
        train(again, optimizer, 1)
        assert (node.step, keeper.header.samples) == (4, 8)


def test_an_exception_detaches_and_goes_on(start, staged: bool) -> None:
    daemon = start(FakeDaemon())
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    node = adpsgd_node.join(network, optimizer, staged=staged)

    def fail_in_training() -> None:
        with node:
            train(network, optimizer, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_training()
    daemon.join()
    assert daemon.plane.header.trainer_state is TrainerState.NONE
    train(network, optimizer, 1)  # on its own now
    assert daemon.plane.header.step == 1
    with pytest.raises(TrainerError, match="detached"):
        node.finish()


def test_a_loss_that_is_not_finite_is_told(start) -> None:
    daemon = start(FakeDaemon())
    network = model()
    node = adpsgd_node.join(network, torch.optim.SGD(network.parameters(), lr=0.1))
    node.log(loss=float("nan"))
    assert math.isnan(daemon.plane.header.loss)
    assert daemon.plane.header.non_finite == 1
    node.log(loss=1.0)
    assert daemon.plane.header.non_finite == 0
    node.detach()


def test_progress_is_that_of_the_whole_run(start) -> None:
    daemon = start(FakeDaemon())
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    node = adpsgd_node.join(network, optimizer, batch_size=10, dataset_size=40)
    header = daemon.plane.header
    train(network, optimizer, 3)
    assert (node.progress.steps, node.progress.samples, node.progress.epoch) == (3, 30, 0.75)
    assert (node.progress.fraction, node.progress.target_samples, node.should_stop) == (0.0, 0, False)
    header.global_steps, header.global_samples, header.target_samples = 9, 100, 400
    assert (node.progress.steps, node.progress.samples, node.progress.epoch) == (9, 100, 2.5)
    assert (node.progress.fraction, node.should_stop) == (0.25, False)
    header.global_samples = 500
    assert (node.progress.fraction, node.should_stop) == (1.0, True)
    header.global_samples, header.command = 100, Command.STOP
    assert node.should_stop
    node.detach()


def test_several_optimizers_in_one_round_make_one_step(start) -> None:
    daemon = start(FakeDaemon())
    network = model()
    first = torch.optim.SGD(network[0].parameters(), lr=0.1)
    second = torch.optim.Adam(network[2].parameters(), lr=0.1)
    with adpsgd_node.join(network, [first, second]):
        for _ in range(3):
            first.step()
            second.step()
        assert daemon.plane.header.step == 3


def test_the_wrapped_optimizer_of_a_framework_is_found(start) -> None:
    class Wrapped:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    daemon = start(FakeDaemon())
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with adpsgd_node.join(network, Wrapped(optimizer)):
        optimizer.step()
        assert daemon.plane.header.step == 1


def test_a_daemon_that_dies_ends_training_at_the_next_step(start) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start(FakeDaemon(daemon_pid=process.pid))
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    adpsgd_node.join(network, optimizer)
    train(network, optimizer, 2)
    process.kill()
    process.communicate()
    with pytest.raises(DaemonLostError, match="daemon is gone.*adpsgd-node up"):
        train(network, optimizer, 1)
    train(network, optimizer, 1)  # the hooks are gone


def test_what_the_daemon_says_during_training_ends_it_by_name(start) -> None:
    daemon = start(FakeDaemon())
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    adpsgd_node.join(network, optimizer)
    daemon.send(Failed("PoisonedError", "loss is NaN: lower the learning rate"))
    with pytest.raises(PoisonedError, match="lower the learning rate"):
        train(network, optimizer, 1)


@pytest.mark.parametrize("where", ["refuse_attach", "refuse_go"])
def test_a_refusal_to_join_is_raised_by_its_name(start, where: str) -> None:
    start(FakeDaemon(**{where: Failed("SchemaMismatchError", "tensor 3 differs")}))
    network = model()
    weight = network[0].weight.detach().clone()
    with pytest.raises(SchemaMismatchError, match="tensor 3 differs"):
        adpsgd_node.join(network, torch.optim.SGD(network.parameters(), lr=0.1))
    assert torch.equal(network[0].weight, weight)


def test_a_failure_to_agree_detaches(start, staged: bool) -> None:
    start(FakeDaemon(refuse_agreement=Failed("JoinError", "no agreement")))
    network = model()
    node = adpsgd_node.join(network, torch.optim.SGD(network.parameters(), lr=0.1), staged=staged)
    with pytest.raises(JoinError, match="no agreement"):
        node.finish()
    with pytest.raises(TrainerError, match="detached"):
        node.finish()


def test_a_daemon_that_sends_too_few_descriptors_is_refused(start) -> None:
    start(FakeDaemon(descriptors_sent=1))
    network = model()
    with pytest.raises(WireError, match="1 descriptors came"):
        adpsgd_node.join(network, torch.optim.SGD(network.parameters(), lr=0.1))


def test_a_second_join_in_one_process_is_refused_clearly(start) -> None:
    start(FakeDaemon())
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with adpsgd_node.join(network, optimizer), pytest.raises(DaemonLostError, match=r"join\(\) once"):
        adpsgd_node.join(model(), optimizer)


def test_options_are_not_for_a_script_that_runs_under_a_daemon(start) -> None:
    start(FakeDaemon())
    network = model()
    with pytest.warns(UserWarning, match="ignores seeds"):
        node = adpsgd_node.join(network, torch.optim.SGD(network.parameters(), lr=0.1), seeds="a:1")
    node.detach()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"dataset_size": -1}, "dataset_size -1"),
        ({"optimizer": []}, "no optimizer"),
        ({"optimizer": "adam"}, "a str as optimizer"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, object], message: str) -> None:
    network = model()
    given = {"optimizer": torch.optim.SGD(network.parameters(), lr=0.1), **arguments}
    with pytest.raises(ConfigError, match=message):
        adpsgd_node.join(network, **given)


def test_a_bf16_model_cannot_be_shared() -> None:
    network = model().bfloat16()
    with pytest.raises(ModelError, match="staged=False"):
        adpsgd_node.join(network, torch.optim.SGD(network.parameters(), lr=0.1), staged=False)


def test_forked_workers_do_not_disturb_the_node(start, staged: bool) -> None:
    daemon = start(FakeDaemon())
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    node = adpsgd_node.join(network, optimizer, staged=staged)
    train(network, optimizer, 1)

    class Samples(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> float:
            optimizer.step()  # what no worker should do: it must not count
            node.log(loss=float("nan"))
            node.detach()
            return float(index)

    loader = torch.utils.data.DataLoader(
        Samples(), batch_size=4, num_workers=2, multiprocessing_context="fork", persistent_workers=True
    )
    for _ in loader:
        train(network, optimizer, 1)
    assert (daemon.plane.header.step, daemon.plane.header.non_finite) == (3, 0)
    assert daemon.plane.header.trainer_state is TrainerState.STEPPING
    assert node.finish().members == 3
    del loader


def test_tied_frozen_and_integer_tensors_are_all_in_the_model_file(start, staged: bool, tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(3, 2)
            self.head = nn.Linear(2, 3, bias=False)
            self.head.weight = self.embed.weight
            self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
            self.register_buffer("count", torch.tensor(4))
            self.register_buffer("brain", torch.ones(2, dtype=torch.bfloat16))

    network = Tied()
    start(FakeDaemon(output=str(tmp_path)))
    staged_here = True if staged else None
    with adpsgd_node.join(network, torch.optim.SGD(network.parameters(), lr=0.1), staged=staged_here):
        pass
    from safetensors.torch import load_file

    path = tmp_path / "model.safetensors"
    stored = load_file(path)
    assert set(stored) == {"frozen", "count", "brain", "embed.weight"}
    assert json.loads(read_metadata(path)["aliases"]) == {"head.weight": "embed.weight"}
    assert stored["count"] == 4
    assert stored["brain"].dtype is torch.bfloat16
    assert torch.equal(stored["embed.weight"], network.embed.weight)


def test_the_plane_of_another_model_is_refused(start) -> None:
    other = Layout.build(take_inventory(nn.Linear(2, 2)).specs, 64)
    start(FakeDaemon(plane=Plane.create(other)))
    network = model()
    with pytest.raises(SchemaMismatchError, match="another model"):
        adpsgd_node.join(network, torch.optim.SGD(network.parameters(), lr=0.1))

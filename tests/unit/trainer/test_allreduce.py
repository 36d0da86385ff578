"""Averaging gradients over the nodes, against DistributedDataParallel, and what it refuses."""

from __future__ import annotations

import copy
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from adpsgd_node.errors import AdpsgdError, ModelError, PeerLostError, TrainerError
from adpsgd_node.plane import Command
from adpsgd_node.trainer import world as world_module
from adpsgd_node.trainer.bucket import BUCKET_BYTES, FIRST_BUCKET_BYTES, plan
from adpsgd_node.trainer.handicap import Handicap
from support import ddp_twin
from support.trainer_world import HOST, LIMIT_S, Member, together

CPU = torch.device("cpu")


def batch_for(member: Member, number: int = 0) -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(100 * number + member.rank))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# Against DistributedDataParallel


@pytest.mark.slow
def test_gradients_are_those_of_distributed_data_parallel() -> None:
    with socket.create_server((HOST, 0)) as listener, socket.create_server((HOST, 0)) as spare:
        ports = [listener.getsockname()[1], spare.getsockname()[1]]
        spare.close()
        command = [sys.executable, "-m", "support.ddp_twin"]
        processes = [
            subprocess.Popen(
                [*command, str(rank), "2", str(ports[0]), str(listener.fileno()), str(ports[1])],
                cwd=Path(ddp_twin.__file__).parents[1],
                stdout=subprocess.PIPE,
                pass_fds=[listener.fileno()] if rank == 0 else [],
            )
            for rank in range(2)
        ]
    try:
        outputs = [process.communicate(timeout=100)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for output in outputs:
        worst = json.loads(output.splitlines()[-1])
        assert set(worst) == {"plain", "several passes", "clipped"}
        assert max(worst.values()) < 1e-6, worst


# Averages


def test_all_nodes_apply_the_average_gradient_and_stay_equal() -> None:
    initial = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

    def train(member: Member) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        model, alone = copy.deepcopy(initial), copy.deepcopy(initial)
        rhythm, optimizer = member.average(model), torch.optim.SGD(model.parameters(), lr=0.1)
        alone(batch_for(member)).square().mean().backward()
        own = [parameter.grad.clone() for parameter in alone.parameters() if parameter.grad is not None]
        averages: list[torch.Tensor] = []
        for number in range(3):
            optimizer.zero_grad()
            model(batch_for(member, number)).square().mean().backward()
            if number == 0:
                averages = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
            rhythm.before_step()
            optimizer.step()
            rhythm.after_step()
        return [*own, *averages], [*(p.detach() for p in model.parameters()), *model.buffers()]

    (first, model), (second, twin), (third, triplet) = together(3, train)
    count = len(first) // 2
    for one, two, three, average in zip(first[:count], second, third, first[count:], strict=False):
        torch.testing.assert_close(average, (one + two + three) / 3)
    for one, two, three in zip(model, twin, triplet, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_a_parameter_that_no_node_has_used_keeps_no_gradient_and_one_used_elsewhere_gets_the_average() -> None:
    def one_pass(member: Member) -> list[torch.Tensor | None]:
        model = nn.ModuleDict({"all": nn.Linear(3, 3), "first": nn.Linear(3, 3), "never": nn.Linear(3, 3)})
        rhythm = member.average(model)
        result = model["all"](torch.ones(2, 3))
        (model["first"](result) if member.rank == 0 else result).sum().backward()
        rhythm.before_step()
        return [model["first"].bias.grad, model["never"].bias.grad]

    for seen, never in together(2, one_pass):
        assert never is None
        assert seen is not None
        torch.testing.assert_close(seen, torch.full((3,), 1.0))  # (2 + 0) / 2


def test_gradients_of_several_backward_passes_add_up_to_the_average_of_their_sums() -> None:
    def accumulate(member: Member) -> torch.Tensor:
        weight = nn.Linear(1, 1, bias=False)
        rhythm = member.average(weight)
        for factor in (1.0, 10.0):
            (weight.weight * (factor * (member.rank + 1))).sum().backward()
        rhythm.before_step()
        assert weight.weight.grad is not None
        return weight.weight.grad

    for gradient in together(2, accumulate):
        torch.testing.assert_close(gradient, torch.tensor([[16.5]]))  # (11 * 1 + 11 * 2) / 2


def test_gradients_that_did_not_come_from_backward_are_averaged_before_the_step() -> None:
    def assign(member: Member) -> torch.Tensor:
        model = nn.Linear(2, 1, bias=False)
        rhythm = member.average(model)
        model.weight.grad = torch.full((1, 2), float(member.rank))
        rhythm.before_step()
        return model.weight.grad

    for gradient in together(2, assign):
        torch.testing.assert_close(gradient, torch.full((1, 2), 0.5))


def test_buffers_are_averaged_too() -> None:
    def one_pass(member: Member) -> tuple[torch.Tensor, torch.Tensor]:
        model = nn.BatchNorm1d(1, momentum=1.0)
        member.average(model)
        model(torch.tensor([[0.0], [2.0]]) + 10 * member.rank).sum().backward()
        assert model.running_mean is not None
        assert model.running_var is not None
        return model.running_mean, model.running_var

    for mean, variance in together(2, one_pass):
        torch.testing.assert_close(mean, torch.tensor([6.0]))  # 1 and 11
        torch.testing.assert_close(variance, torch.tensor([2.0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_averaged(dtype: torch.dtype) -> None:
    def one_pass(member: Member) -> torch.Tensor:
        model = nn.Linear(2, 1, bias=False).to(dtype)
        member.average(model)
        (model.weight * (member.rank + 1)).sum().backward()
        assert model.weight.grad is not None
        return model.weight.grad

    for gradient in together(2, one_pass):
        assert torch.equal(gradient, torch.full((1, 2), 1.5, dtype=dtype))


# The same number of steps everywhere


def test_all_nodes_stop_after_the_step_in_which_one_was_told_to() -> None:
    def train(member: Member) -> list[bool]:
        model = nn.Linear(2, 1)
        rhythm = member.average(model)
        answers = []
        for step in range(3):
            if member.rank == 1 and step == 1:
                member.header.command = Command.STOP
            told = member.header.command is Command.STOP
            answers.append(rhythm.agrees_to_stop(told))
            model(torch.ones(1, 2)).sum().backward()
            rhythm.before_step()
            rhythm.after_step()
        return [*answers, rhythm.agrees_to_stop(False)]

    for answers in together(2, train):
        assert answers == [False, False, True, True]


def test_all_nodes_count_the_run_alike_and_stop_after_the_step_that_reaches_the_target() -> None:
    def train(member: Member) -> list[tuple[int, int]]:
        rhythm = member.average(model := nn.Linear(2, 1))
        if member.rank == 1:  # only one of them has a target
            member.header.target_samples = 1035
        counts = [rhythm.totals()]
        while not rhythm.agrees_to_stop(False):
            model(torch.ones(1, 2)).sum().backward()
            rhythm.before_step()
            rhythm.after_step()
            counts.append(rhythm.totals())
        return counts

    def begun(member: Member) -> None:
        member.header.global_steps, member.header.global_samples = (100, 1000) if member.rank == 0 else (7, 7)

    counts, twin = together(2, train, before=begun)  # batches of 8 and 9
    assert counts == twin == [(100, 1000), (102, 1017), (104, 1034), (106, 1051)]


def test_a_node_in_another_step_than_the_others_is_an_error() -> None:
    def uneven(member: Member) -> None:
        model = nn.Linear(2, 1)
        rhythm = member.average(model)
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
            if member.rank == 0:  # the other takes both passes to one step
                rhythm.before_step()
                rhythm.after_step()

    with pytest.raises(TrainerError, match="equally often"):
        together(2, uneven)


def test_waiting_for_the_others_is_not_taken_for_computing() -> None:
    def train(member: Member) -> tuple[float, float]:
        model = nn.Linear(2, 1)
        rhythm = member.average(model)
        assert rhythm.take_waited_s() == 0
        model(torch.ones(1, 2)).sum().backward()
        waited_s = rhythm.take_waited_s()
        assert rhythm.take_waited_s() == 0
        rhythm.before_step()
        rhythm.before_step()  # waits, as there was no pass since: but not between two steps
        return waited_s, rhythm.take_waited_s()

    for in_the_pass_s, in_the_step_s in together(2, train):
        assert in_the_pass_s > 0
        assert in_the_step_s == 0


def test_a_handicap_leaves_waits_out() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    handicap = Handicap(3.0, 0.0, told_to_stop=lambda: False, clock=lambda: now[0], sleep=sleep)
    handicap.go_on()
    now[0] = 1.1
    handicap.excuse(1.0)
    handicap.stretch()
    assert sum(slept) == pytest.approx(0.2)  # 0.1 s of computing takes 0.3 s


# Refused


def test_a_sparse_gradient_is_refused_with_the_way_out() -> None:
    def one_pass(member: Member) -> None:
        model = nn.Embedding(5, 2, sparse=True)
        member.average(model)
        model(torch.tensor([1])).sum().backward()

    with pytest.raises(ModelError, match="sparse=False"):
        together(1, one_pass)


def test_a_parameter_that_is_unfrozen_later_is_named() -> None:
    def one_pass(member: Member) -> None:
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        model[0].weight.requires_grad_(False)
        rhythm = member.average(model)
        model[0].weight.requires_grad_(True)
        model(torch.ones(1, 2)).sum().backward()
        rhythm.before_step()

    with pytest.raises(ModelError, match=r"parameter 0\.weight"):
        together(1, one_pass)


# Broken


def test_a_node_that_waits_for_one_that_does_not_come_raises_what_its_daemon_says_and_is_free_to_go() -> None:
    lost = PeerLostError("allreduce cannot go on without n1")
    gone = threading.Event()

    def wait(member: Member) -> list[str]:
        if member.rank == 1:
            assert gone.wait(LIMIT_S / 2)
            return []
        model = nn.Linear(2, 1)
        rhythm = member.average(model)
        member.link.news = lost
        texts = []
        for attempt in (lambda: model(torch.ones(1, 2)).sum().backward(), rhythm.before_step):
            with pytest.raises(PeerLostError) as raised:
                attempt()
            texts.append(str(raised.value))
        assert not member.header.waiting
        rhythm.stop()
        rhythm.close()
        gone.set()
        return texts

    assert together(2, wait)[0] == [str(lost), str(lost)]


def test_a_connection_that_breaks_is_told_as_a_lost_node_when_the_daemon_knows_of_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(world_module, "NEWS_LIMIT_S", 0.3)

    def part(member: Member) -> str:
        if member.rank == 1:
            member.world.close()
            return ""
        with pytest.raises(AdpsgdError) as raised:
            member.world.finish(member.world.start_sum(torch.zeros(3)))
        assert isinstance(raised.value, PeerLostError)
        return str(raised.value)

    assert "start all nodes again" in together(2, part)[0]


# Where they listen


@pytest.mark.parametrize(("host", "bound"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("192.0.2.1", "0.0.0.0")])
def test_a_trainer_listens_at_the_address_of_its_node_and_everywhere_only_if_that_is_not_of_this_machine(
    host: str, bound: str
) -> None:
    with world_module.listen(host) as listener:
        assert listener.getsockname()[0] == bound


# Buckets


def test_buckets_hold_the_parameters_in_reverse_order_a_small_one_first() -> None:
    large = BUCKET_BYTES // 4
    sizes = [3, large - 10, 20, 5, FIRST_BUCKET_BYTES // 4]
    parameters = [torch.empty(size) for size in sizes]
    buckets = plan(parameters, CPU, extra=2)
    assert [[parameter.numel() for parameter in bucket.parameters] for bucket in buckets] == [
        [FIRST_BUCKET_BYTES // 4],
        [5, 20],
        [large - 10, 3],
    ]
    assert [bucket.extra.numel() for bucket in buckets] == [0, 0, 2]


def test_what_travels_behind_the_gradients_is_exact_whatever_their_dtype() -> None:
    buckets = plan([torch.empty(4, dtype=torch.float64)], CPU, extra=3)
    assert [(bucket.flat.dtype, bucket.flat.numel()) for bucket in buckets] == [(torch.float64, 4), (torch.float32, 3)]

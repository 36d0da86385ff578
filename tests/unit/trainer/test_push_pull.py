"""A-PSGD's steps: momentum is told to the servers and left out here, and the next step waits for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch

from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.errors import ConfigError
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.plane.header import Header
from adpsgd_node.trainer.gate import Gate
from adpsgd_node.trainer.push_pull import PushPull
from adpsgd_node.trainer.replica import Replica


class Recorder:
    """Stands for the replica and the gate: notes what is asked of them, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def flush(self) -> None:
        self.calls.append("flush")

    def catch_up(self) -> None:
        self.calls.append("catch up")

    def wait(self, opened: Callable[[], bool]) -> None:
        self.calls.append(f"wait, {'open' if opened() else 'shut'}")


@pytest.fixture
def header() -> Header:
    layout = Layout.build([TensorSpec("weight", (4,), "float32", Segment.PARAMETERS)], 64)
    return Plane.create(layout).header


def made(header: Header, *optimizers: torch.optim.Optimizer) -> tuple[PushPull, Recorder]:
    recorder = Recorder()
    return PushPull(header, cast(Replica, recorder), cast(Gate, recorder), optimizers), recorder


def parameter() -> torch.nn.Parameter:
    one = torch.nn.Parameter(torch.ones(4))
    one.grad = torch.full((4,), 2.0)
    return one


def test_a_step_with_momentum_is_plain_here_and_the_servers_are_told(header: Header) -> None:
    weight = parameter()
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, nesterov=True)
    push_pull, _ = made(header, optimizer)
    for steps in (1, 2, 3):
        push_pull.before_step()
        optimizer.step()
        push_pull.after_step()
        torch.testing.assert_close(weight.data, torch.full((4,), 1.0 - 0.2 * steps))
    assert (header.momentum, header.nesterov) == (0.9, 1)
    assert optimizer.param_groups[0]["momentum"] == 0.9, "the script sees its own"


def test_an_optimizer_with_a_state_of_its_own_keeps_it(header: Header) -> None:
    weight = parameter()
    optimizer = torch.optim.Adam([weight], lr=0.1)
    push_pull, _ = made(header, optimizer)
    push_pull.before_step()
    optimizer.step()
    push_pull.after_step()
    assert header.momentum == 0.0
    torch.testing.assert_close(weight.data, torch.full((4,), 0.9))


def test_a_step_is_published_then_waited_for_then_what_came_is_taken_in(header: Header) -> None:
    push_pull, recorder = made(header, torch.optim.SGD([parameter()], lr=0.1))
    push_pull.before_step()
    push_pull.after_step()
    header.step, header.mixed = 3, 2
    push_pull.between_steps()
    header.mixed = 3
    push_pull.between_steps()
    assert recorder.calls == ["flush", "wait, shut", "catch up", "wait, open", "catch up"]
    assert push_pull.take_waited_s() >= 0.0
    assert push_pull.take_waited_s() == 0.0


def test_a_step_that_was_begun_and_not_ended_costs_no_momentum(header: Header) -> None:
    optimizer = torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)
    push_pull, _ = made(header, optimizer)
    push_pull.before_step()
    push_pull.before_step()
    push_pull.after_step()
    assert (header.momentum, optimizer.param_groups[0]["momentum"]) == (0.9, 0.9)


def test_groups_that_come_later_count_too(header: Header) -> None:
    weight, later = parameter(), parameter()
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    push_pull, _ = made(header, optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.add_param_group({"params": [later]})
    for steps in (1, 2):
        push_pull.before_step()
        optimizer.step()
        push_pull.after_step()
        for one in (weight, later):
            torch.testing.assert_close(one.data, torch.full((4,), 1.0 - 0.2 * steps))


def test_a_step_of_an_earlier_life_that_is_not_pulled_yet_is_waited_for_before_the_next(header: Header) -> None:
    push_pull, recorder = made(header, torch.optim.SGD([parameter()], lr=0.1))
    header.step, header.mixed = 3, 2
    push_pull.before_step()
    assert recorder.calls == ["wait, shut", "catch up"]


@pytest.mark.parametrize(
    "groups",
    [
        [{"momentum": 0.9}, {"momentum": 0.5}],
        [{"momentum": 0.9, "nesterov": True}, {"momentum": 0.9}],
        [{"momentum": 0.9, "dampening": 0.1}],
    ],
)
def test_momentum_that_no_server_can_apply_is_refused(header: Header, groups: list[dict[str, object]]) -> None:
    optimizer = torch.optim.SGD([{"params": [parameter()], **group} for group in groups], lr=0.1)
    with pytest.raises(ConfigError, match="give all its parameter groups the same"):
        made(header, optimizer)


def test_a_script_that_stops_in_the_middle_of_a_step_has_its_momentum_back(header: Header) -> None:
    optimizer = torch.optim.SGD([parameter()], lr=0.1, momentum=0.9)
    push_pull, _ = made(header, optimizer)
    push_pull.before_step()
    push_pull.stop()
    assert optimizer.param_groups[0]["momentum"] == 0.9

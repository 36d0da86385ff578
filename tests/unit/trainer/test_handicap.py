"""Computing that is stretched: the arithmetic on a clock of the test's own, and what ends a wait early."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import adpsgd_node
from adpsgd_node.errors import DaemonLostError, PoisonedError
from adpsgd_node.plane import Command
from adpsgd_node.trainer import handicap as handicap_module
from adpsgd_node.trainer.handicap import LOOK_S, Handicap, device_is_done
from adpsgd_node.wire.trainer import Failed
from support.fake_daemon import FakeDaemon


class Clock:
    """A clock that only sleeping, and the test, move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.sleeps.append(seconds)
        self.now += seconds


def never() -> bool:
    return False


def handicap(
    clock: Clock, factor: float = 1.0, least_s: float = 0.0, told_to_stop: Callable[[], bool] = never
) -> Handicap:
    return Handicap(factor, least_s, told_to_stop=told_to_stop, clock=clock, sleep=clock.sleep)


def computed(clock: Clock, slowed: Handicap, seconds: float) -> float:
    """Let a step compute for so long; returns how long computing took in the end."""
    began = clock.now
    clock.now += seconds
    slowed.stretch()
    return clock.now - began


def warmed_up(clock: Clock, slowed: Handicap) -> Handicap:
    """Have the first step behind us."""
    slowed.stretch()
    slowed.go_on()
    return slowed


@pytest.mark.parametrize(
    ("factor", "least_s", "took", "becomes"),
    [
        (1.0, 0.0, 0.3, 0.3),
        (5.0, 0.0, 0.3, 1.5),
        (1.0, 0.05, 0.02, 0.05),
        (1.0, 0.05, 0.3, 0.3),
        (10.0, 0.05, 0.02, 0.5),
        (10.0, 0.05, 0.07, 0.7),
    ],
)
def test_computing_takes_the_longer_of_measured_and_least_times_the_factor(
    factor: float, least_s: float, took: float, becomes: float
) -> None:
    clock = Clock()
    slowed = warmed_up(clock, handicap(clock, factor, least_s))
    assert computed(clock, slowed, took) == pytest.approx(becomes)


def test_every_step_is_stretched_by_its_own_time() -> None:
    clock = Clock()
    slowed = warmed_up(clock, handicap(clock, 3.0))
    times = []
    for took in (0.1, 0.4, 0.2):
        times.append(computed(clock, slowed, took))
        slowed.go_on()
    assert times == pytest.approx([0.3, 1.2, 0.6])


def test_what_a_step_waited_for_is_not_stretched() -> None:
    clock = Clock()
    slowed = warmed_up(clock, handicap(clock, 4.0))
    computed(clock, slowed, 0.1)
    clock.now += 60.0  # the others were late
    slowed.go_on()
    assert computed(clock, slowed, 0.1) == pytest.approx(0.4)


def test_what_it_waited_for_in_between_is_not_stretched_either() -> None:
    clock = Clock()
    slowed = handicap(clock, 4.0)
    slowed.excuse(1.0)  # before the first step there is nothing to excuse
    warmed_up(clock, slowed)
    clock.now += 60.0
    slowed.excuse(60.0)
    assert computed(clock, slowed, 0.1) == pytest.approx(0.4)


def test_the_first_step_counts_as_the_least_however_long_it_warmed_up() -> None:
    clock = Clock()
    slowed = handicap(clock, 10.0, 0.05)
    assert computed(clock, slowed, 30.0) == pytest.approx(30.5)


def test_without_a_handicap_nothing_waits_and_the_device_runs_on() -> None:
    clock = Clock()

    def must_not() -> None:
        raise AssertionError("waited for the device")

    free = Handicap(1.0, 0.0, told_to_stop=never, computed=must_not, clock=clock, sleep=clock.sleep)
    warmed_up(clock, free)
    assert computed(clock, free, 0.3) == pytest.approx(0.3)
    assert clock.sleeps == []


def test_the_device_is_done_before_its_time_is_taken() -> None:
    clock = Clock()

    def finish_on_the_device() -> None:
        clock.now += 0.2

    slowed = Handicap(2.0, 0.0, told_to_stop=never, computed=finish_on_the_device, clock=clock, sleep=clock.sleep)
    warmed_up(clock, slowed)
    assert computed(clock, slowed, 0.1) == pytest.approx(0.6)


def test_a_long_wait_looks_around_often() -> None:
    clock = Clock()
    slowed = warmed_up(clock, handicap(clock, 100.0))
    computed(clock, slowed, 1.0)
    assert sum(clock.sleeps) == pytest.approx(99.0)
    assert max(clock.sleeps) <= LOOK_S <= 0.2


def test_a_step_that_is_told_to_stop_waits_no_more() -> None:
    clock = Clock()
    slowed = warmed_up(clock, handicap(clock, 100.0, told_to_stop=lambda: clock.now > 103.0))
    assert computed(clock, slowed, 1.0) < 3.0 + 2 * LOOK_S


def test_a_waiting_step_notices_that_the_daemon_is_gone() -> None:
    clock = Clock()

    def check() -> bool:
        if clock.now > 103.0:
            raise DaemonLostError("gone")
        return False

    slowed = warmed_up(clock, handicap(clock, 100.0, told_to_stop=check))
    with pytest.raises(DaemonLostError):
        computed(clock, slowed, 1.0)
    assert clock.now < 103.0 + 2 * LOOK_S


def test_a_model_on_the_cpu_is_always_done() -> None:
    device_is_done(nn.Linear(2, 2))()
    device_is_done(nn.ReLU())()


def test_a_joined_script_takes_the_handicap_that_its_daemon_names(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(handicap_module, "time", clock)
    daemon = FakeDaemon(slow_factor=3.0, emulate_step_s=0.5)
    monkeypatch.setenv("ADPSGD_TRAINER_FD", str(daemon.start()))
    network = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    node = adpsgd_node.join(network, optimizer)
    for _ in range(2):
        network(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert sum(clock.sleeps) == pytest.approx(2 * 1.5)
    assert daemon.plane is not None
    daemon.plane.header.command = Command.STOP
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert sum(clock.sleeps) == pytest.approx(2 * 1.5)
    node.detach()
    daemon.join()


def test_a_joined_script_hears_in_the_middle_of_a_step_why_its_daemon_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class FailingClock(Clock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if len(self.sleeps) == 3:
                daemon.send(Failed("PoisonedError", "the run is lost"))

    clock = FailingClock()
    monkeypatch.setattr(handicap_module, "time", clock)
    daemon = FakeDaemon(emulate_step_s=3600.0)
    monkeypatch.setenv("ADPSGD_TRAINER_FD", str(daemon.start()))
    network = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    adpsgd_node.join(network, optimizer)
    network(torch.ones(1, 2)).sum().backward()
    with pytest.raises(PoisonedError, match="the run is lost"):
        optimizer.step()
    daemon.join()
    assert len(clock.sleeps) == 3

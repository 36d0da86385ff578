from __future__ import annotations

import math

import numpy as np

from adpsgd_node.plane.header import HEADER_BYTES, Command, Header, TrainerState


def header() -> Header:
    fresh = Header(np.zeros(HEADER_BYTES, np.uint8))
    fresh.reset()
    return fresh


def test_a_fresh_header_says_that_nothing_happened_yet() -> None:
    fresh = header()
    assert fresh.trainer_state is TrainerState.NONE
    assert fresh.command is Command.RUN
    assert math.isnan(fresh.loss)
    assert math.isnan(fresh.accuracy)
    assert (fresh.step, fresh.samples, fresh.target_samples, fresh.fold_commit) == (0, 0, 0, 0)


def test_every_field_keeps_its_own_value() -> None:
    first = header()
    names = [
        "trainer_pid", "step", "samples", "non_finite", "fold_commit",
        "global_steps", "global_samples", "target_samples", "exchanges",
    ]  # fmt: skip
    for ordinal, name in enumerate(names):
        setattr(first, name, 1 + ordinal)
    first.trainer_state = TrainerState.SETTLING
    first.command = Command.STOP
    first.loss, first.accuracy = 0.25, 0.5
    first.step_seconds[0] = 7
    first.step_seconds[1023] = 8
    assert [getattr(first, name) for name in names] == list(range(1, 1 + len(names)))
    assert (first.trainer_state, first.command) == (TrainerState.SETTLING, Command.STOP)
    assert (first.loss, first.accuracy) == (0.25, 0.5)
    assert first.step_seconds.tolist()[::1023] == [7, 8]


def test_the_fields_of_the_options_beyond_the_paper_keep_their_own_values() -> None:
    first = header()
    names = ["mixing_rate", "momentum_share", "rate_scale", "exchanges_per_unit"]
    assert [getattr(first, name) for name in names] == [0.0] * len(names)
    for ordinal, name in enumerate(names):
        setattr(first, name, 0.5 + ordinal)
    assert [getattr(first, name) for name in names] == [0.5, 1.5, 2.5, 3.5]
    assert (first.mixed, first.exchanges) == (0, 0)


def test_large_counters_are_exact() -> None:
    first = header()
    first.samples = (1 << 63) + 1
    assert first.samples == (1 << 63) + 1


def test_two_headers_over_one_memory_see_each_other() -> None:
    memory = np.zeros(HEADER_BYTES, np.uint8)
    Header(memory).step = 41
    assert Header(memory).step == 41

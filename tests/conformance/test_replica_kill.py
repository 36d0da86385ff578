"""However steps, exchanges, rebases and kills interleave, no way of keeping a model loses or doubles a delta."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import adpsgd_node.plane.fold as fold_module
import adpsgd_node.trainer.staging as staging_module
from adpsgd_node.plane import Fold
from adpsgd_node.plane.plane import INBOX_FACE
from support.exact_view import exact_view
from support.interruption import run_until_line
from support.replicas import CASES, Bound, bind, whole

pytestmark = pytest.mark.usefixtures("seeded")


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.integers(-3, 3), st.just(0)),
        st.tuples(st.just("add"), st.integers(0, 5), st.integers(0, 1 << 20)),
        st.tuples(st.just("rebase"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("advance"), st.sampled_from([1, 20, 1000, 1000]), st.just(0)),
    ),
    min_size=8,
    max_size=40,
)


@pytest.mark.parametrize("max_staging_bytes", [1, 256, 1 << 20])
@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=25, deadline=None)
@given(events=EVENTS)
def test_no_delta_is_lost_or_doubled_under_any_interleaving_and_at_any_kill(
    case: tuple[str, torch.dtype], max_staging_bytes: int, events: list[tuple[str, int, int]]
) -> None:
    """Steps and deltas are whole numbers, so that every sum is exact; every element of a plane that a kill leaves
    must be at one of the steps made so far, whatever was folded."""
    kind, dtype = case
    model = nn.Linear(20, 4, bias=False).to(dtype)
    with torch.no_grad():
        model.weight.zero_()
    bound = bind(model, kind, max_staging_bytes=max_staging_bytes)
    received = np.zeros(bound.plane.layout.elements)
    reached = [0]
    for what, number, seed in events:
        if what == "step":
            bound.replica.before_step()
            assert_recoverable(bound, received, reached)
            with torch.no_grad():
                model.weight += number
            reached.append(reached[-1] + number)
            bound.replica.after_step()
        elif what == "add":
            chunk = number % len(bound.plane.layout.chunks)
            start, stop = bound.plane.layout.chunks[chunk]
            delta = np.random.default_rng(seed).integers(-2, 3, stop - start).astype(np.float32)
            bound.plane.add_to_inbox(chunk, delta)
            received[start:stop] += delta
        elif what == "rebase":
            bound.plane.rebase(number % len(bound.plane.layout.chunks))
        else:
            bound.advance(number)
        assert_recoverable(bound, received, reached)
    bound.replica.flush()
    weights = bound.place("weight")
    expected = reached[-1] + received[weights]
    assert np.array_equal(exact_view(bound.plane)[weights], expected)
    assert np.array_equal(bound.view()[weights], expected)
    bound.replica.settle()
    assert np.array_equal(model.weight.detach().float().reshape(-1).numpy(), expected)
    assert not any(bound.plane.rebasing(chunk) for chunk in range(len(bound.plane.layout.chunks)))


def assert_recoverable(bound: Bound, received: np.ndarray, reached: list[int]) -> None:
    """A trainer that starts now, after a kill of this one, would find all that was received, on top of some step."""
    assert np.isin((exact_view(bound.plane) - received)[bound.place("weight")], reached).all()


def rebase(bound: Bound) -> None:
    for chunk in range(len(bound.plane.layout.chunks)):
        bound.plane.rebase(chunk)


def test_a_rebased_chunk_is_followed_within_a_few_steps_and_its_deltas_reach_the_model(kind: str) -> None:
    model = whole(nn.Linear(20, 4, bias=False))
    weight = model.weight.detach().clone()
    bound = bind(model, kind)
    for number in range(1, 4):
        bound.add("weight", 1.0)
        rebase(bound)
        bound.add("weight", 2.0)
        for _ in range(8):
            bound.round()
            assert np.array_equal(bound.view()[bound.place("weight")], weight.reshape(-1).numpy() + 3 * number)
        assert bound.plane.inbox_face.tolist() == [number % 2] * len(bound.plane.layout.chunks)
        assert not bound.plane.rebasing(0)
        assert bound.plane.unfolded_count() == 0
        assert torch.equal(model.weight, weight + 3 * number)


def test_a_trainer_killed_before_any_line_amid_rebases_leaves_a_plane_that_lost_nothing(kind: str) -> None:
    ended, ordinal = False, 0
    turned: list[bool] = []
    while not ended:
        model = whole(nn.Linear(20, 4, bias=False))
        bound = bind(model, kind, chunk_bytes=192)
        initial, received = exact_view(bound.plane), np.zeros(bound.plane.layout.elements)

        def train(bound: Bound = bound, received: np.ndarray = received) -> None:
            for number in range(12):
                bound.add("weight", 2.0**number)
                received[bound.place("weight")] += 2.0**number
                if number in (0, 5):
                    rebase(bound)
                bound.replica.before_step()
                bound.replica.after_step()
                bound.advance(100)
                turned.append(bool((bound.plane.faces & INBOX_FACE).any()))

        ended = run_until_line(train, ordinal, fold_module, staging_module)
        fold = Fold(bound.plane)
        fold.recover()
        assert np.array_equal(exact_view(bound.plane), initial + received), f"killed before line event {ordinal}"
        fold.fold()
        assert np.array_equal(bound.plane.live, initial + received)
        assert not bound.plane.rebasing(0)
        ordinal += 1
    assert ordinal > 100
    assert any(turned), "no trainer got to the end of a rebase by itself"


@pytest.mark.parametrize("kind", ["staged", "staged-delayed"])
def test_a_plane_left_by_a_killed_staged_trainer_can_be_taken_over(kind: str) -> None:
    model = whole(nn.Linear(20, 4, bias=False))
    bound = bind(model, kind)
    initial = bound.view()
    for value in (1.0, 2.0, 4.0):
        bound.add("weight", value)
        bound.replica.before_step()
        bound.replica.after_step()
        bound.advance(30)  # killed here: copies are under way
    fold = Fold(bound.plane)
    fold.recover()
    fold.fold()
    assert np.array_equal(bound.plane.live, initial + bound.plane.inbox)

"""The fold, and what a kill in the middle of it may do: nothing."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adpsgd_node.plane.fold as fold_module
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.plane.fold import Fold
from adpsgd_node.plane.layout import Layout
from adpsgd_node.plane.plane import FOLDED_FACE, LIVE_FACE, Plane
from support.exact_view import exact_view
from support.interruption import Interrupted, run_until_line

SMALL = Layout.build([TensorSpec("w", (40,), "float32", Segment.PARAMETERS)], 64)


def deltas(chunk: int, seed: int) -> np.ndarray:
    start, stop = SMALL.chunks[chunk]
    # Small integers: every sum is exact, so conservation can be asked for bit by bit.
    return np.random.default_rng(seed).integers(-8, 8, stop - start).astype(np.float32)


def test_fold_moves_the_whole_inbox_into_live() -> None:
    plane = Plane.create(SMALL)
    plane.live[:] = 5
    plane.add_to_inbox(0, deltas(0, 1))
    plane.add_to_inbox(2, deltas(2, 2))
    assert Fold(plane).fold() == 2
    assert np.array_equal(plane.live, 5 + plane.inbox)
    assert np.array_equal(plane.folded, plane.inbox)
    assert plane.unfolded_count() == 0
    assert Fold(plane).fold() == 0


def test_a_forced_fold_takes_chunks_whose_version_did_not_move() -> None:
    plane = Plane.create(SMALL)
    plane.inbox[:] = 1
    assert Fold(plane).fold() == 0
    assert Fold(plane).fold(force=True) == 3
    assert plane.live.tolist() == [1.0] * 48


def test_a_delta_that_arrives_during_a_fold_is_folded_next_time() -> None:
    class DaemonWritesMeanwhile(Fold):
        def _fold_block(self, chunk: int, start: int, stop: int) -> None:
            super()._fold_block(chunk, start, stop)
            plane.add_to_inbox(0, deltas(0, 3))

    plane = Plane.create(SMALL)
    plane.add_to_inbox(0, deltas(0, 1))
    DaemonWritesMeanwhile(plane).fold()
    assert plane.unfolded(0)
    Fold(plane).fold()
    assert np.array_equal(plane.live, plane.inbox)


def test_a_kill_before_any_line_of_a_fold_loses_and_doubles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_module, "BLOCK_ELEMENTS", 8)  # two blocks a chunk
    ended, ordinal = False, 0
    while not ended:
        plane = Plane.create(SMALL)
        plane.live[:] = np.arange(48)
        for chunk in range(3):
            plane.add_to_inbox(chunk, deltas(chunk, chunk))
        ended = run_until_line(Fold(plane).fold, ordinal, fold_module)
        again = Fold(plane)
        again.recover()
        assert plane.header.fold_commit == 0
        assert np.array_equal(plane.live - plane.folded, np.arange(48)), f"killed before line event {ordinal}"
        again.fold()
        assert np.array_equal(plane.live, np.arange(48) + plane.inbox)
        ordinal += 1
    assert ordinal > 50


@pytest.mark.parametrize("torn", [0, 3, 8])
@pytest.mark.parametrize("array", ["live", "folded"])
def test_a_kill_in_the_middle_of_a_copy_is_mended(array: str, torn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledMidCopy(Fold):
        def _apply(self, chunk: int, start: int, stop: int) -> None:
            if array == "folded":
                plane.live[start:stop] = plane.redo[0][: stop - start]
            row = 0 if array == "live" else 1
            getattr(plane, array)[start : start + torn] = plane.redo[row][:torn]
            raise Interrupted

    monkeypatch.setattr(fold_module, "BLOCK_ELEMENTS", 8)
    plane = Plane.create(SMALL)
    plane.live[:] = 7
    plane.add_to_inbox(1, deltas(1, 4))
    with pytest.raises(Interrupted):
        KilledMidCopy(plane).fold()
    Fold(plane).recover()
    assert (plane.live - plane.folded).tolist() == [7.0] * 48


def test_a_kill_during_recovery_is_mended_by_the_next_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_module, "BLOCK_ELEMENTS", 8)
    ended, ordinal = False, 0
    while not ended:
        plane = Plane.create(SMALL)
        plane.live_faces[0][:], plane.live_faces[1][:] = 4, 9
        plane.folded_faces[0][:], plane.folded_faces[1][:] = 0, 5
        plane.faces[0] = LIVE_FACE | FOLDED_FACE
        plane.redo[0][:8], plane.redo[1][:8] = 6, 2
        plane.header.fold_commit = 16 + 1
        ended = run_until_line(Fold(plane).recover, ordinal, fold_module)
        Fold(plane).recover()
        assert (plane.live - plane.folded).tolist() == [4.0] * 48
        assert plane.live.tolist() == [9.0] * 16 + [6.0] * 8 + [4.0] * 24
        ordinal += 1
    assert ordinal > 10


def test_killing_the_trainer_many_times_conserves_every_delta() -> None:
    layout = Layout.build([TensorSpec("w", (100_000,), "float32", Segment.PARAMETERS)], 1 << 17)
    plane = Plane.create(layout)
    plane.live[:] = 3
    expected = np.full(layout.elements, 3.0)
    rng = np.random.default_rng(7)
    kills_while_folding = kills_while_rebasing = 0
    for _ in range(40):
        ready_read, ready_write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                trainer = Fold(plane)
                trainer.recover()
                os.write(ready_write, b"r")
                while True:
                    trainer.fold(force=True)
            finally:
                os._exit(1)
        os.close(ready_write)
        assert os.read(ready_read, 1) == b"r"
        os.close(ready_read)
        for _ in range(int(rng.integers(1, 30))):
            chunk = int(rng.integers(len(layout.chunks)))
            start, stop = layout.chunks[chunk]
            delta = rng.integers(-4, 5, stop - start).astype(np.float32)
            plane.add_to_inbox(chunk, delta)
            expected[start:stop] += delta
            plane.rebase(int(rng.integers(len(layout.chunks))))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills_while_folding += plane.header.fold_commit != 0
        kills_while_rebasing += any(plane.rebasing(chunk) for chunk in range(len(layout.chunks)))
    survivor = Fold(plane)
    survivor.recover()
    assert np.array_equal(exact_view(plane), expected)
    survivor.fold(force=True)
    assert np.array_equal(plane.live, expected)
    assert kills_while_folding > 0, "no kill fell into a fold: the test showed nothing"
    assert kills_while_rebasing > 0, "no kill fell into a rebase: the test showed less than it says"


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2), st.integers(0, 1 << 30)),
        st.tuples(st.just("fold"), st.just(0), st.integers(0, 120)),
        st.tuples(st.just("step"), st.integers(0, 2), st.integers(-8, 8)),
        st.tuples(st.just("rebase"), st.integers(0, 2), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_the_view_is_steps_plus_deltas_under_any_interleaving(events: list[tuple[str, int, int]]) -> None:
    """Fold events are cut short before some line and recovered, as by a kill and a restart."""
    plane = Plane.create(SMALL)
    expected = np.zeros(48, np.float32)
    scratch = np.zeros(16, np.float32)
    for kind, chunk, number in events:
        start, stop = SMALL.chunks[chunk]
        if kind == "add":
            plane.add_to_inbox(chunk, deltas(chunk, number))
            expected[start:stop] += deltas(chunk, number)
        elif kind == "step":
            plane.live[start:stop] += number
            expected[start:stop] += number
        elif kind == "rebase":
            plane.rebase(chunk)
        else:
            run_until_line(Fold(plane).fold, number, fold_module)
            Fold(plane).recover()
        view = np.concatenate([plane.read_view(c, scratch).copy() for c in range(3)])
        assert np.array_equal(view, expected)
        assert np.array_equal(view, exact_view(plane))
    Fold(plane).fold()
    assert np.array_equal(plane.live, expected)
    assert not any(plane.rebasing(chunk) for chunk in range(3))

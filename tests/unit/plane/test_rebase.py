"""Rebasing `inbox`: fp32 keeps its precision, and no reader, kill or absence of the trainer makes the view change."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import adpsgd_node.plane.fold as fold_module
import adpsgd_node.plane.plane as plane_module
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.plane.fold import Fold
from adpsgd_node.plane.layout import Layout
from adpsgd_node.plane.plane import (
    FOLDED_FACE,
    INBOX_FACE,
    LIVE_FACE,
    REBASE_CHECK_WRITES,
    REBASE_NORM_RATIO,
    Plane,
)
from support.exact_view import exact_view
from support.interruption import before_line, run_until_line

SMALL = Layout.build([TensorSpec("w", (40,), "float32", Segment.PARAMETERS)], 64)
CHUNKS = range(len(SMALL.chunks))
LARGE_DELTA = 1e6
ROUNDS = 8192


@pytest.fixture
def two_blocks_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_module, "BLOCK_ELEMENTS", 8)
    monkeypatch.setattr(plane_module, "BLOCK_ELEMENTS", 8)


def whole(seed: int) -> np.ndarray:
    """Small whole numbers: every sum is exact, so nothing less than equality is asked for."""
    return np.random.default_rng(seed).integers(-8, 9, SMALL.elements).astype(np.float32)


def add(plane: Plane, values: np.ndarray) -> None:
    for chunk, (start, stop) in enumerate(SMALL.chunks):
        plane.add_to_inbox(chunk, values[start:stop])


def read(plane: Plane) -> np.ndarray:
    scratch = np.empty(SMALL.elements, np.float32)
    return np.concatenate([plane.read_view(chunk, scratch).copy() for chunk in CHUNKS])


def amid_a_rebase() -> Plane:
    """Chunk 1 is being rebased, with something unfolded in both faces of `inbox`; its second rebase."""
    plane = Plane.create(SMALL)
    plane.live[:] = whole(1)
    for seed in (2, 3):
        assert plane.rebase(1)
        add(plane, whole(seed))
        Fold(plane).fold()
    add(plane, whole(4))
    assert plane.rebase(1)
    add(plane, whole(5))
    return plane


EXPECTED = whole(1) + whole(2) + whole(3) + whole(4) + whole(5)


def test_the_view_stays_the_same_through_a_rebase_and_the_fold_that_completes_it() -> None:
    plane = amid_a_rebase()
    assert [plane.rebasing(chunk) for chunk in CHUNKS] == [False, True, False]
    assert np.array_equal(read(plane), EXPECTED)
    assert np.array_equal(exact_view(plane), EXPECTED)
    Fold(plane).fold()
    assert not plane.rebasing(1)
    assert plane.unfolded_count() == 0
    assert np.array_equal(plane.live, EXPECTED)
    _, inbox, folded = plane.published(1)
    assert np.array_equal(inbox[16:32], whole(5)[16:32]), "the new inbox began from zero"
    assert np.array_equal(folded[16:32], whole(5)[16:32])


def test_a_rebase_without_a_delta_is_followed_by_the_trainer_too() -> None:
    plane = Plane.create(SMALL)
    assert plane.rebase(2)
    assert plane.unfolded(2)
    assert Fold(plane).fold() == 1
    assert not plane.rebasing(2)


def test_a_rebase_that_begins_while_a_chunk_is_folded_is_completed_by_the_next_fold() -> None:
    class DaemonRebasesMeanwhile(Fold):
        def _fold_block(self, chunk: int, start: int, stop: int) -> None:
            super()._fold_block(chunk, start, stop)
            if plane.rebase(chunk):
                add(plane, whole(7))

    plane = Plane.create(SMALL)
    add(plane, whole(6))
    DaemonRebasesMeanwhile(plane).fold()
    assert np.array_equal(read(plane), whole(6) + 3 * whole(7))
    Fold(plane).fold()
    assert np.array_equal(plane.live, whole(6) + 3 * whole(7))
    assert not any(plane.rebasing(chunk) for chunk in CHUNKS)


@pytest.mark.usefixtures("two_blocks_a_chunk")
def test_a_kill_before_any_line_of_the_fold_that_completes_a_rebase_loses_and_doubles_nothing() -> None:
    ended, ordinal = False, 0
    while not ended:
        plane = amid_a_rebase()
        ended = run_until_line(Fold(plane).fold, ordinal, fold_module)
        again = Fold(plane)
        again.recover()
        assert np.array_equal(exact_view(plane), EXPECTED), f"killed before line event {ordinal}"
        assert np.array_equal(read(plane), EXPECTED)
        again.fold()
        assert np.array_equal(plane.live, EXPECTED)
        assert not plane.rebasing(1)
        ordinal += 1
    assert ordinal > 80


@pytest.mark.parametrize(("faces", "inbox_face"), list(itertools.product(range(8), range(2))))
def test_recovery_keeps_the_view_of_a_plane_left_with_any_faces_even_if_killed(faces: int, inbox_face: int) -> None:
    ended, ordinal = False, 0
    while not ended:
        plane = Plane.create(SMALL)
        vectors = [*plane.live_faces, *plane.inbox_faces, *plane.folded_faces]
        for seed, vector in enumerate(vectors):
            vector[:] = whole(seed)
        plane.faces[0], plane.inbox_face[0] = faces, inbox_face
        plane.version[:] = 1
        left = exact_view(plane)
        ended = run_until_line(Fold(plane).recover, ordinal, fold_module)
        assert np.array_equal(exact_view(plane), left), f"killed before line event {ordinal}"
        Fold(plane).recover()
        assert np.array_equal(exact_view(plane), left)
        Fold(plane).fold()
        assert np.array_equal(plane.live, left)
        ordinal += 1


@pytest.mark.usefixtures("two_blocks_a_chunk")
def test_a_view_is_right_whenever_the_trainer_completes_a_rebase_while_it_is_read() -> None:
    came_to_it, ordinal = True, 0
    while came_to_it:
        plane = amid_a_rebase()
        scratch = np.full(16, np.nan, np.float32)
        seen: list[np.ndarray] = []
        came_to_it = before_line(
            lambda plane=plane, seen=seen, scratch=scratch: seen.append(plane.read_view(1, scratch)),
            ordinal,
            Fold(plane).fold,
            plane_module,
        )
        assert np.array_equal(seen[0], EXPECTED[16:32]), f"completed before line event {ordinal}"
        ordinal += 1
    assert ordinal > 20


def test_a_view_is_right_even_if_a_staged_trainer_publishes_twice_while_it_is_read() -> None:
    """First what it fetched before the rebase, then the rest of the old inbox: it writes to both faces meanwhile."""

    class ReadMeanwhile(Plane):
        acts = 0

        def _fill_view(self, view: np.ndarray, start: int, faces: int, newest: np.ndarray | None) -> None:
            if self.acts == 0:
                self.faces[1] ^= FOLDED_FACE | LIVE_FACE
                self.folded_faces[0][:] = 0  # about to be published as the new inbox's
            elif self.acts == 1:
                self.live_faces[0][:] = self.live_faces[1]
                self.faces[1] ^= FOLDED_FACE | LIVE_FACE | INBOX_FACE
                self.folded_faces[1][:] = whole(9)  # of a publish that is still under way
            self.acts += 1
            super()._fill_view(view, start, faces, newest)

    plane = ReadMeanwhile.create(SMALL)
    plane.inbox_faces[0][:] = plane.folded_faces[0][:] = plane.folded_faces[1][:] = LARGE_DELTA
    plane.live_faces[0][:] = plane.live_faces[1][:] = whole(1)
    assert plane.rebase(1)
    add(plane, whole(2))
    assert np.array_equal(plane.read_view(1, np.empty(16, np.float32)), (whole(1) + whole(2))[16:32])
    assert plane.acts == 3


def test_a_chunk_is_rebased_when_its_inbox_dwarfs_live_and_no_other() -> None:
    plane = Plane.create(SMALL)
    plane.live[:] = 1
    for chunk, size in enumerate([REBASE_NORM_RATIO * 0.9, REBASE_NORM_RATIO * 1.1, -REBASE_NORM_RATIO * 1.1]):
        for _ in range(REBASE_CHECK_WRITES):
            assert not plane.rebasing(chunk)
            plane.add_to_inbox(chunk, np.full(16, size / REBASE_CHECK_WRITES, np.float32))
    assert [plane.rebasing(chunk) for chunk in CHUNKS] == [False, True, True]


@pytest.mark.parametrize("live", [np.nan, np.inf])
def test_a_chunk_whose_live_is_not_finite_is_left_alone(live: float) -> None:
    plane = Plane.create(SMALL)
    plane.live[:] = live
    for _ in range(REBASE_CHECK_WRITES):
        plane.add_to_inbox(0, np.full(16, LARGE_DELTA, np.float32))
    assert not plane.rebasing(0)


def test_without_a_trainer_a_chunk_is_rebased_once_and_nothing_is_lost() -> None:
    plane = Plane.create(SMALL)
    plane.live[:] = 1
    turns = 0
    for _ in range(6 * REBASE_CHECK_WRITES):
        before = int(plane.inbox_face[0])
        plane.add_to_inbox(0, np.full(16, 1024, np.float32))
        turns += before != plane.inbox_face[0]
    assert turns == 1
    assert not plane.rebase(0)
    total = 1 + 6 * REBASE_CHECK_WRITES * 1024
    assert plane.read_view(0, np.empty(16, np.float32)).tolist() == [total] * 16
    trainer = Fold(plane)
    trainer.recover()
    trainer.fold()
    assert plane.live[:16].tolist() == [total] * 16
    assert not plane.rebasing(0)


def test_a_chunk_that_outgrows_live_again_is_rebased_again() -> None:
    plane = Plane.create(SMALL)
    plane.live[:] = 1
    turns = []
    for _ in range(4 * REBASE_CHECK_WRITES):
        before = int(plane.inbox_face[0])
        plane.add_to_inbox(0, np.full(16, 512, np.float32))
        turns += [int(plane.inbox_face[0])] if before != plane.inbox_face[0] else []
        Fold(plane).fold()
        plane.live[:16] -= 512
    assert turns == [1, 0, 1, 0]
    assert plane.live[:16].tolist() == [1] * 16


def worst_error(rebase_norm_ratio: float) -> tuple[float, float]:
    """Pile deltas up to thousands of times the norm of `live`, its own steps taking them away again; then cancel them.

    Returns the worst |view - exact| / |live| and the largest |inbox| / |live|.
    """
    rng = np.random.default_rng(5)
    plane = Plane.create(SMALL, rebase_norm_ratio)
    plane.live[:] = rng.standard_normal(SMALL.elements)
    norm = np.linalg.norm(plane.live)
    exact = plane.live.astype(np.float64)
    trainer = Fold(plane)
    direction = rng.uniform(0.5, 1.5, SMALL.elements)
    worst = largest = 0.0
    for number in range(ROUNDS):
        sign = 1 if number < ROUNDS // 2 else -1
        delta = (sign * direction * rng.uniform(0.9, 1.1, SMALL.elements)).astype(np.float32)
        add(plane, delta)
        exact += delta
        worst = max(worst, float(np.linalg.norm(read(plane) - exact) / norm))
        trainer.fold()
        before = plane.live.astype(np.float64)
        plane.live -= delta
        exact += plane.live - before
        largest = max(largest, *(float(np.linalg.norm(face) / norm) for face in plane.inbox_faces))
    return worst, largest


def test_deltas_that_pile_up_and_cancel_keep_their_precision_only_with_rebase() -> None:
    """A sum of thousands resolves 2^-12 of `live`, one of 512 at most 2^-15; the rest is chance over 8192 roundings."""
    error, largest = worst_error(REBASE_NORM_RATIO)
    assert largest < 2 * REBASE_NORM_RATIO
    assert error < 1e-3
    error, largest = worst_error(math.inf)
    assert largest > 1000
    assert error > 5e-3

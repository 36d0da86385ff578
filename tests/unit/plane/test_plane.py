from __future__ import annotations

import os

import numpy as np
import pytest

from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.errors import PlaneError
from adpsgd_node.plane.fold import Fold
from adpsgd_node.plane.layout import Layout
from adpsgd_node.plane.plane import BLOCK_ELEMENTS, FOLDED_FACE, LIVE_FACE, Plane


def layout(elements: int = 40, chunk_bytes: int = 64, dtype: str = "float32") -> Layout:
    return Layout.build([TensorSpec("w", (elements,), dtype, Segment.PARAMETERS)], chunk_bytes)


def test_both_processes_see_one_memory() -> None:
    daemon = Plane.create(layout())
    trainer = Plane.attach(os.dup(daemon.fd), layout())
    trainer.live[:] = 3
    daemon.add_to_inbox(1, np.full(16, 0.5, np.float32))
    trainer.header.step = 12
    assert daemon.live.tolist() == [3.0] * 48
    assert trainer.inbox[16:32].tolist() == [0.5] * 16
    assert daemon.header.step == 12
    assert [trainer.unfolded(chunk) for chunk in range(3)] == [False, True, False]
    assert trainer.unfolded_count() == 1


def test_the_view_of_a_folded_chunk_is_live_itself() -> None:
    plane = Plane.create(layout())
    scratch = np.zeros(16, np.float32)
    plane.live[:] = 2
    assert np.shares_memory(plane.read_view(0, scratch), plane.live)
    plane.add_to_inbox(0, np.ones(16, np.float32))
    view = plane.read_view(0, scratch)
    assert np.shares_memory(view, scratch)
    assert view.tolist() == [3.0] * 16


def test_the_view_of_a_chunk_longer_than_a_block_is_complete() -> None:
    plane = Plane.create(layout(3 * BLOCK_ELEMENTS + 5, 1 << 20))
    rng = np.random.default_rng(0)
    plane.live[:] = rng.standard_normal(plane.live.size, np.float32)
    delta = rng.standard_normal(plane.live.size, np.float32)
    plane.add_to_inbox(0, delta)
    view = plane.read_view(0, np.zeros(delta.size, np.float32))
    assert np.array_equal(view, delta + plane.live)


@pytest.mark.parametrize("faces", [LIVE_FACE, FOLDED_FACE, LIVE_FACE | FOLDED_FACE])
def test_the_view_is_taken_from_the_published_faces(faces: int) -> None:
    plane = Plane.create(layout())
    plane.live_faces[0][:], plane.live_faces[1][:] = 1, 10
    plane.folded_faces[0][:], plane.folded_faces[1][:] = 2, 20
    plane.add_to_inbox(2, np.full(16, 100, np.float32))
    plane.faces[2] = faces
    expected = (10 if faces & LIVE_FACE else 1) + 100 - (20 if faces & FOLDED_FACE else 2)
    assert plane.read_view(2, np.zeros(16, np.float32)).tolist() == [expected] * 16
    Fold(plane).recover()
    assert plane.faces.tolist() == [0, 0, 0]
    assert plane.read_view(2, np.zeros(16, np.float32)).tolist() == [expected] * 16


def test_a_plane_of_another_size_is_refused() -> None:
    daemon = Plane.create(layout(40))
    with pytest.raises(PlaneError, match="layouts differ"):
        Plane.attach(os.dup(daemon.fd), layout(100_000))


def test_a_plane_of_another_schema_is_refused() -> None:
    daemon = Plane.create(layout())
    with pytest.raises(PlaneError, match="another model"):
        Plane.attach(os.dup(daemon.fd), layout(dtype="bfloat16"))


def test_nobody_can_shrink_the_plane_under_the_other_process() -> None:
    daemon = Plane.create(layout())
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(daemon.fd, 0)


def test_arrays_stay_usable_after_close() -> None:
    plane = Plane.create(layout())
    live = plane.live
    plane.close()
    plane.close()
    live[:] = 1
    assert live.sum() == 48

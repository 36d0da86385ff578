from __future__ import annotations

import pytest

from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.errors import PlaneError
from adpsgd_node.plane.layout import ALIGNMENT, MAX_TENSOR_NAME_LENGTH, Layout, describe_difference


def parameter(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, shape, dtype, Segment.PARAMETERS)


def buffer(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, shape, "float32", Segment.BUFFERS)


def test_parameters_come_before_buffers_in_their_own_order() -> None:
    layout = Layout.build([buffer("mean", 3), parameter("w", 5, 5), buffer("var", 3), parameter("b", 5)], 64)
    assert [placement.spec.name for placement in layout.placements] == ["w", "b", "mean", "var"]
    assert [placement.start for placement in layout.placements] == [0, 32, 48, 64]
    assert layout.boundary == 48
    assert layout.elements == 80


def test_every_tensor_starts_on_a_cache_line_and_none_overlaps() -> None:
    layout = Layout.build([parameter(f"p{size}", size) for size in (1, 16, 17, 0, 100)], 128)
    for before, after in zip(layout.placements, layout.placements[1:], strict=False):
        assert after.start % ALIGNMENT == 0
        assert before.stop <= after.start


def test_chunks_tile_the_vector_and_never_cross_the_segment_boundary() -> None:
    layout = Layout.build([parameter("w", 100), buffer("mean", 70)], 128)
    assert layout.chunks[0][0] == 0
    assert layout.chunks[-1][1] == layout.elements
    for (_, stop), (start, _) in zip(layout.chunks, layout.chunks[1:], strict=False):
        assert stop == start
    assert any(stop == layout.boundary for _, stop in layout.chunks)
    assert all(stop - start <= 32 for start, stop in layout.chunks)
    segments = [layout.segment(chunk) for chunk in range(len(layout.chunks))]
    assert segments == [Segment.PARAMETERS] * 4 + [Segment.BUFFERS] * 3


def test_a_scalar_takes_one_element() -> None:
    layout = Layout.build([parameter("scale")], 64)
    assert (layout.placements[0].start, layout.placements[0].stop) == (0, 1)


@pytest.mark.parametrize(
    "changed",
    [parameter("v", 2, 3), parameter("w", 3, 2), parameter("w", 2, 3, dtype="bfloat16"), buffer("w", 2, 3)],
)
def test_schema_changes_with_name_shape_dtype_and_segment(changed: TensorSpec) -> None:
    anchor = parameter("anchor", 1)
    assert Layout.build([anchor, parameter("w", 2, 3)], 64).schema != Layout.build([anchor, changed], 64).schema


def test_schema_does_not_depend_on_the_chunk_size() -> None:
    assert Layout.build([parameter("w", 99)], 64).schema == Layout.build([parameter("w", 99)], 128).schema


def test_difference_names_the_first_tensor_that_differs() -> None:
    ours = [parameter("a", 1), parameter("w", 2, 3)]
    assert "w float32[2, 3] here and w float32[3, 2] there" in describe_difference(
        ours, [parameter("a", 1), parameter("w", 3, 2)]
    )
    assert "w float32[2, 3] is only here" in describe_difference(ours, ours[:1])
    assert "w float32[2, 3] is only there" in describe_difference(ours[:1], ours)
    assert "parameters here, buffers there" in describe_difference([parameter("w", 2)], [buffer("w", 2)])
    assert describe_difference(ours, ours) == "the models are the same"


@pytest.mark.parametrize("chunk_bytes", [0, 63, 100, -64, 1 << 25])
def test_a_chunk_size_that_does_not_fit_is_refused(chunk_bytes: int) -> None:
    with pytest.raises(PlaneError, match="chunk size"):
        Layout.build([parameter("w", 2)], chunk_bytes)


def test_two_tensors_with_one_name_are_refused() -> None:
    with pytest.raises(PlaneError, match="two tensors are named 'w'"):
        Layout.build([parameter("w", 2), buffer("w", 2)], 64)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * (MAX_TENSOR_NAME_LENGTH + 1)])
def test_a_tensor_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(PlaneError, match="tensor name"):
        Layout.build([parameter(name, 2)], 64)


def test_a_model_with_nothing_to_exchange_is_refused() -> None:
    with pytest.raises(PlaneError, match="no floating-point parameter"):
        Layout.build([], 64)


def test_a_model_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(PlaneError, match="elements"):
        Layout.build([parameter("huge", 1 << 20, 1 << 20)], 1 << 20)

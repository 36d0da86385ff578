"""A clipped exchange moves both sides by exact opposites, never beyond its bound, and its undo is exact."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adpsgd_node.codecs import codec_named
from adpsgd_node.core.exchange.clip import scale_for, within
from adpsgd_node.core.exchange.frame import Chunk, CodecName
from adpsgd_node.core.exchange.guard import Norms
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.merge import Merge, Merged
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.wire.framing import decode_frame, encode_chunk

ELEMENTS = 257
LAYOUT = Layout.build([TensorSpec("w", (ELEMENTS,), "float32", Segment.PARAMETERS)], 4096)


def _side(values: NDArray[np.float64]) -> tuple[Plane, Merge]:
    plane = Plane.create(LAYOUT)
    plane.live[: len(values)] = values.astype(np.float32)
    return plane, Merge(plane)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    codec_name=st.sampled_from(CodecName),
    bound=st.sampled_from([0.0, 1e-3, 0.1, 0.5, 1.0]),
    mine_size=st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 1e6]),
    theirs_size=st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 1e6]),
    apart=st.sampled_from([0.0, 1e-3, 1.0]),
)
def test_both_sides_move_by_exact_opposites_within_the_bound_and_back_to_the_bit(
    seed: int, codec_name: CodecName, bound: float, mine_size: float, theirs_size: float, apart: float
) -> None:
    rng, codec = np.random.default_rng(seed), codec_named(codec_name)
    base = rng.standard_normal(ELEMENTS)
    other = base + apart * rng.standard_normal(ELEMENTS)
    mine, one = _side(mine_size * base)
    theirs, two = _side(theirs_size * other)
    sent = encode_chunk(0, 0, codec.encode(one.view(0))).data
    back = encode_chunk(0, 0, codec.encode(two.view(0))).data

    responded = two.apply(codec, 0, sent, back, lambda norms: scale_for(bound, norms))
    assert isinstance(responded, Merged)
    answer = decode_frame(encode_chunk(0, 0, back, responded.scale).message)
    assert isinstance(answer, Chunk)
    scale, data = answer.scale, memoryview(answer.data)

    def use_scale(norms: Norms) -> float:
        assert within(scale, bound, norms)
        return scale

    initiated = one.apply(codec, 0, data, sent, use_scale)
    assert isinstance(initiated, Merged)

    assert np.array_equal(mine.inbox, -theirs.inbox)
    if bound:
        sides = [np.linalg.norm(codec.decode(side, LAYOUT.elements).astype(np.float64)) for side in (sent, back)]
        moved = np.linalg.norm(theirs.inbox.astype(np.float64))
        assert moved <= 1.0001 * bound * min(sides) / 2 + 1e-24 * max(sides)
    one.revert(codec, 0, data, sent, initiated.scale)
    two.revert(codec, 0, sent, back, responded.scale)
    assert not mine.inbox.any()
    assert not theirs.inbox.any()
    mine.close()
    theirs.close()

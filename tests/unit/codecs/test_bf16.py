from __future__ import annotations

import numpy as np
import pytest

from adpsgd_node.codecs.bf16 import Bf16


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (1.0, "803f"),
        (-2.0, "00c0"),
        (1.0 + 2.0**-8, "803f"),  # half-way: to even, down
        (1.0 + 3 * 2.0**-8, "823f"),  # half-way: to even, up
        (float("inf"), "807f"),
    ],
)
def test_bytes_are_the_upper_half_rounded_to_nearest_even(value: float, encoded: str) -> None:
    assert Bf16().encode(np.array([value], np.float32)).tobytes().hex() == encoded


def test_decoding_fills_the_scratch_it_is_given() -> None:
    codec = Bf16()
    scratch = np.zeros(3, np.float32)
    decoded = codec.decode(codec.encode(np.array([1, 2, 3], np.float32)).tobytes(), 3, scratch)
    assert decoded is scratch
    np.testing.assert_array_equal(scratch, [1, 2, 3])

"""What every codec does, whichever it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from adpsgd_node.codecs import Codec, codec_named
from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.errors import WireError
from adpsgd_node.wire.framing import Buffer, decode_frame, encode_chunk

BF16_RELATIVE_STEP = 2.0**-8
"""Half a unit in the last place of 8 significant bits, relative to the value."""


@pytest.fixture(params=list(CodecName), ids=lambda name: name.name.lower())
def codec(request: pytest.FixtureRequest) -> Codec:
    return codec_named(request.param)


def values(elements: int, seed: int = 1) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(elements).astype(np.float32)


def carried(payload: Buffer) -> bytes | memoryview:
    """Send `payload` in a chunk's frame and return what arrives."""
    frame = decode_frame(encode_chunk(3, 1, payload).message)
    return frame.data  # type: ignore[union-attr]


def test_codec_is_found_by_the_name_it_says(codec: Codec) -> None:
    assert codec_named(codec.name) is codec


@pytest.mark.parametrize("elements", [1, 2, 3, 17, 4096])
def test_encoded_length_is_as_announced(codec: Codec, elements: int) -> None:
    assert memoryview(carried(codec.encode(values(elements)))).nbytes == codec.encoded_bytes(elements)


@pytest.mark.parametrize("elements", [1, 2, 3, 17, 4096])
def test_values_come_back_within_the_codec_precision(codec: Codec, elements: int) -> None:
    sent = values(elements)
    came = codec.decode(carried(codec.encode(sent)), elements)
    assert came.dtype == np.float32
    tolerance = 0.0 if codec.lossless else BF16_RELATIVE_STEP
    np.testing.assert_allclose(came, sent, rtol=tolerance, atol=0.0)


def test_lossless_codecs_return_every_bit(codec: Codec) -> None:
    sent = values(4096)
    came = codec.decode(carried(codec.encode(sent)), sent.size)
    assert np.array_equal(came.view(np.uint32), sent.view(np.uint32)) == codec.lossless


def test_encoding_what_was_decoded_changes_nothing(codec: Codec) -> None:
    once = codec.decode(carried(codec.encode(values(999))), 999).copy()
    twice = codec.decode(carried(codec.encode(once)), 999)
    np.testing.assert_array_equal(once, twice)


def test_both_sides_compute_exactly_opposite_deltas(codec: Codec) -> None:
    mine, theirs = (codec.decode(carried(codec.encode(values(4096, seed))), 4096) for seed in (1, 2))
    np.testing.assert_array_equal((theirs - mine) * np.float32(0.5), -((mine - theirs) * np.float32(0.5)))


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_non_finite_values_stay_visible(codec: Codec, special: float) -> None:
    sent = np.array([1.0, special, -2.0], np.float32)
    came = codec.decode(carried(codec.encode(sent)), 3)
    np.testing.assert_array_equal(np.isfinite(came), [True, False, True])


def test_decoding_with_scratch_gives_the_same_values(codec: Codec) -> None:
    data = carried(codec.encode(values(100)))
    scratch = np.full(100, np.nan, np.float32)
    np.testing.assert_array_equal(codec.decode(data, 100, scratch), codec.decode(data, 100))


def test_encoding_leaves_the_values_alone(codec: Codec) -> None:
    sent = values(100)
    before = sent.copy()
    codec.encode(sent)
    np.testing.assert_array_equal(sent, before)


@pytest.mark.parametrize("surplus", [-4, -1, 1, 4])
def test_wrong_length_names_what_was_expected_and_what_came(codec: Codec, surplus: int) -> None:
    expected = codec.encoded_bytes(10)
    with pytest.raises(WireError, match=f"expected {expected} bytes, got {expected + surplus}"):
        codec.decode(bytes(expected + surplus), 10)

from __future__ import annotations

import numpy as np

from adpsgd_node.codecs.fp32 import Fp32
from adpsgd_node.core.exchange.frame import Chunk
from adpsgd_node.wire.framing import decode_frame, encode_chunk


def test_encoding_copies_nothing() -> None:
    values = np.arange(8, dtype=np.float32)
    assert np.shares_memory(Fp32().encode(values), values)


def test_decoding_copies_nothing_and_is_aligned() -> None:
    chunk = decode_frame(encode_chunk(300, 299, np.arange(1000, dtype=np.float32)).message)
    assert isinstance(chunk, Chunk)
    decoded = Fp32().decode(chunk.data, 1000)
    assert np.shares_memory(decoded, np.frombuffer(chunk.data, np.uint8))
    assert decoded.flags.aligned


def test_bytes_are_little_endian_ieee_754() -> None:
    assert bytes(Fp32().encode(np.array([1.0, -2.0], np.float32))) == bytes.fromhex("0000803f000000c0")

"""Run a node whose daemon sends what it does not hold, so that only its peers can notice.

    python lying_node.py up ... script        (as `adpsgd-node up`)

`LYING_NODE` says what it sends in place of its parameters, and after how many honest chunks: `nan:100` or `x100:100`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from adpsgd_cli.main import main
from adpsgd_node.daemon import initiate, respond
from adpsgd_node.wire.framing import Buffer, EncodedChunk, encode_chunk

VARIABLE = "LYING_NODE"


def lie(text: str) -> None:
    """Have exchanges in both roles send something else; what the node believes to have sent stays the truth."""
    what, _, honest = text.partition(":")
    factor = np.float32("nan" if what == "nan" else what.removeprefix("x"))
    left = int(honest)

    def encode_lie(index: int, applied_through: int, payload: Buffer, scale: float = 1.0) -> EncodedChunk:
        nonlocal left
        truth = encode_chunk(index, applied_through, payload, scale)
        left -= 1
        if left >= 0:
            return truth
        values = np.frombuffer(truth.data, np.float32) * factor
        return EncodedChunk(encode_chunk(index, applied_through, values, scale).message, truth.data)

    spoken: Callable[..., EncodedChunk] = encode_lie
    initiate.encode_chunk = spoken
    respond.encode_chunk = spoken


if __name__ == "__main__":
    lie(os.environ[VARIABLE])
    main()

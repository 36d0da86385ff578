"""Write and read the variable-length integers of the protobuf wire format."""

from __future__ import annotations

from adpsgd_node.errors import WireError

__all__ = ["MAX_LENGTH_BYTES", "MAX_VARINT_BYTES", "encode_varint", "read_varint"]

MAX_VARINT_BYTES = 10
"""Longest varint that protobuf parsers accept as a number."""

MAX_LENGTH_BYTES = 5
"""Longest varint that they accept as the length of a field."""


def encode_varint(value: int, length: int = 0) -> bytes:
    """Encode `value` >= 0 in at least `length` bytes: the extra ones are zero groups, which every parser accepts."""
    encoded = bytearray()
    while value > 0x7F or len(encoded) + 1 < length:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_varint(message: bytes, at: int, max_bytes: int = MAX_VARINT_BYTES) -> tuple[int, int]:
    """Return the varint that starts at offset `at`, and the offset after it. Raises `WireError`."""
    value = shift = 0
    for position in range(at, min(at + max_bytes, len(message))):
        byte = message[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
    raise WireError(f"no varint of at most {max_bytes} bytes at offset {at} of {len(message)}")

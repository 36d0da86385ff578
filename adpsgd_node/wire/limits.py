"""Bound everything that comes from outside; what exceeds a limit here is a `WireError`, never an allocation."""

from __future__ import annotations

__all__ = [
    "MAX_ADDRESS_LENGTH",
    "MAX_CHUNK_BYTES",
    "MAX_CHUNK_COUNT",
    "MAX_COUNT",
    "MAX_DELIVER_BYTES",
    "MAX_DETAIL_LENGTH",
    "MAX_INCARNATION",
    "MAX_JOIN_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_PACKET_BYTES",
    "MAX_PROGRESS_ENTRIES",
    "MAX_RETRY_AFTER_MS",
    "MAX_TOTAL",
    "MAX_WINDOW",
    "SCHEMA_BYTES",
]

MAX_CHUNK_BYTES = 16 * 1024 * 1024
"""Largest chunk of the plane, in bytes; also the largest payload of one frame."""

MAX_CHUNK_COUNT = 1 << 20
"""Most chunks one plane may have."""

MAX_MESSAGE_BYTES = MAX_CHUNK_BYTES + 1024 * 1024
"""Largest message between peers: a full chunk with its frame, or an offer that lists all tensors."""

MAX_PROGRESS_ENTRIES = 16
"""Most progress entries that travel with one exchange frame."""

MAX_WINDOW = 64
"""Most chunks an initiator may have sent without knowing them applied on both sides."""

MAX_DETAIL_LENGTH = 1024
"""Longest explanatory text, in characters."""

MAX_RETRY_AFTER_MS = 60_000
"""Longest time a donor may ask a joiner to wait before it asks again."""

SCHEMA_BYTES = 32
"""Length of a schema hash (SHA-256)."""

MAX_PACKET_BYTES = 64 * 1024
"""Largest packet of membership."""

MAX_DELIVER_BYTES = 16 * MAX_PACKET_BYTES
"""Largest answer to a packet: to a caller that nobody can dial it brings the packets that wait for it."""

MAX_JOIN_BYTES = 4 * 1024 * 1024
"""Largest question or answer of a join: it lists all members and all progress."""

MAX_ADDRESS_LENGTH = 261
"""Longest `host:port`, in characters: a DNS name of 253, brackets, and a port."""

MAX_INCARNATION = 1 << 62
"""Largest incarnation heard; a node can still raise its own above it."""

MAX_COUNT = 1 << 48
"""Largest steps or samples of one life of one node; a sum of all entries a run counts still fits 63 bits."""

MAX_TOTAL = (1 << 63) - 1
"""Largest steps or samples of a whole run."""

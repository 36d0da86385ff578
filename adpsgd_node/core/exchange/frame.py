"""The frames of one exchange stream, as values.

The initiator sends `Open`, then `Chunk`s, then `Close`; the responder answers `Accept` or `Decline`, then one `Chunk`
for each that came, or `Abort`. `wire.framing` turns them into bytes of the published schema and back.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.ids import NodeId, RunId, SchemaHash

__all__ = [
    "MAX_ROUND",
    "Abort",
    "AbortReason",
    "Accept",
    "Chunk",
    "Close",
    "CodecName",
    "Decline",
    "DeclineReason",
    "Frame",
    "Open",
    "Settle",
    "SettleOutcome",
    "Settled",
]

MAX_ROUND = 1 << 62


class CodecName(enum.IntEnum):
    """How a chunk of the plane becomes bytes; the numbers are those of the published schema."""

    FP32 = 1
    BF16 = 2


class DeclineReason(enum.IntEnum):
    BUSY = 1
    RUN = 2
    PROTOCOL = 3
    SCHEMA = 4
    NOT_READY = 5
    POISONED = 6
    SETTLED = 7
    STOPPING = 8
    IDENTITY = 9
    QUARANTINED = 10


class AbortReason(enum.IntEnum):
    NON_FINITE_THEIRS = 1
    NON_FINITE_OWN = 2
    NORM_JUMP = 3


class SettleOutcome(enum.IntEnum):
    SETTLED = 1
    UNKNOWN = 2
    REBOOTED = 3
    REFUSED = 4
    EVICTED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    protocol: int
    run_id: RunId
    schema: SchemaHash
    initiator: NodeId
    responder: NodeId
    exchange_id: int
    """Grows within one boot of the initiator."""
    codec: CodecName
    chunk_bytes: int
    """Bytes of fp32 in a full chunk of the plane, before encoding."""
    chunk_count: int
    step: int
    progress: tuple[ProgressEntry, ...] = ()
    """At most 16: news of the run's counters travels with every exchange."""
    clip: float = 0.0
    """No chunk moves by more than this part of the smaller side's norm; 0: no bound. The least of both sides' holds."""
    round: int = 0
    """Of D-PSGD, as the initiator counts it, at most `MAX_ROUND`; 0: it is in none."""


@dataclass(frozen=True, slots=True)
class Accept:
    step: int
    progress: tuple[ProgressEntry, ...] = ()
    round: int = 0
    """As in `Open`, of the responder."""


@dataclass(frozen=True, slots=True)
class Decline:
    reason: DeclineReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    index: int
    applied_through: int
    """The initiator has applied chunks [0, applied_through); 0 in a responder's chunk."""
    data: bytes | memoryview
    scale: float = 1.0
    """From the responder: the part of the difference that both sides apply, a float32 above 0 and at most 1."""


@dataclass(frozen=True, slots=True)
class Abort:
    reason: AbortReason
    index: int


@dataclass(frozen=True, slots=True)
class Close:
    applied_through: int


Frame = Open | Accept | Decline | Chunk | Abort | Close


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """What an initiator tells a responder after a broken stream."""

    run_id: RunId
    initiator: NodeId
    responder: NodeId
    exchange_id: int
    applied_through: int


@dataclass(frozen=True, slots=True)
class Settled:
    outcome: SettleOutcome
    reverted: int
    """Chunks whose delta was taken back."""

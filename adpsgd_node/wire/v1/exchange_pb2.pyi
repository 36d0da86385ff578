from adpsgd_node.wire.v1 import membership_pb2 as _membership_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_UNSPECIFIED: _ClassVar[Codec]
    CODEC_FP32: _ClassVar[Codec]
    CODEC_BF16: _ClassVar[Codec]

class DeclineReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECLINE_REASON_UNSPECIFIED: _ClassVar[DeclineReason]
    DECLINE_REASON_BUSY: _ClassVar[DeclineReason]
    DECLINE_REASON_RUN: _ClassVar[DeclineReason]
    DECLINE_REASON_PROTOCOL: _ClassVar[DeclineReason]
    DECLINE_REASON_SCHEMA: _ClassVar[DeclineReason]
    DECLINE_REASON_NOT_READY: _ClassVar[DeclineReason]
    DECLINE_REASON_POISONED: _ClassVar[DeclineReason]
    DECLINE_REASON_SETTLED: _ClassVar[DeclineReason]
    DECLINE_REASON_STOPPING: _ClassVar[DeclineReason]
    DECLINE_REASON_IDENTITY: _ClassVar[DeclineReason]
    DECLINE_REASON_QUARANTINED: _ClassVar[DeclineReason]

class AbortReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ABORT_REASON_UNSPECIFIED: _ClassVar[AbortReason]
    ABORT_REASON_NON_FINITE_THEIRS: _ClassVar[AbortReason]
    ABORT_REASON_NON_FINITE_OWN: _ClassVar[AbortReason]
    ABORT_REASON_NORM_JUMP: _ClassVar[AbortReason]

class SettleOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SETTLE_OUTCOME_UNSPECIFIED: _ClassVar[SettleOutcome]
    SETTLE_OUTCOME_SETTLED: _ClassVar[SettleOutcome]
    SETTLE_OUTCOME_UNKNOWN: _ClassVar[SettleOutcome]
    SETTLE_OUTCOME_REBOOTED: _ClassVar[SettleOutcome]
    SETTLE_OUTCOME_REFUSED: _ClassVar[SettleOutcome]
    SETTLE_OUTCOME_EVICTED: _ClassVar[SettleOutcome]
CODEC_UNSPECIFIED: Codec
CODEC_FP32: Codec
CODEC_BF16: Codec
DECLINE_REASON_UNSPECIFIED: DeclineReason
DECLINE_REASON_BUSY: DeclineReason
DECLINE_REASON_RUN: DeclineReason
DECLINE_REASON_PROTOCOL: DeclineReason
DECLINE_REASON_SCHEMA: DeclineReason
DECLINE_REASON_NOT_READY: DeclineReason
DECLINE_REASON_POISONED: DeclineReason
DECLINE_REASON_SETTLED: DeclineReason
DECLINE_REASON_STOPPING: DeclineReason
DECLINE_REASON_IDENTITY: DeclineReason
DECLINE_REASON_QUARANTINED: DeclineReason
ABORT_REASON_UNSPECIFIED: AbortReason
ABORT_REASON_NON_FINITE_THEIRS: AbortReason
ABORT_REASON_NON_FINITE_OWN: AbortReason
ABORT_REASON_NORM_JUMP: AbortReason
SETTLE_OUTCOME_UNSPECIFIED: SettleOutcome
SETTLE_OUTCOME_SETTLED: SettleOutcome
SETTLE_OUTCOME_UNKNOWN: SettleOutcome
SETTLE_OUTCOME_REBOOTED: SettleOutcome
SETTLE_OUTCOME_REFUSED: SettleOutcome
SETTLE_OUTCOME_EVICTED: SettleOutcome

class Open(_message.Message):
    __slots__ = ("protocol", "run_id", "schema", "initiator", "boot", "exchange_id", "responder", "responder_boot", "codec", "chunk_bytes", "chunk_count", "step", "progress", "clip", "round")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    INITIATOR_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONDER_FIELD_NUMBER: _ClassVar[int]
    RESPONDER_BOOT_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run_id: str
    schema: bytes
    initiator: str
    boot: int
    exchange_id: int
    responder: str
    responder_boot: int
    codec: Codec
    chunk_bytes: int
    chunk_count: int
    step: int
    progress: _containers.RepeatedCompositeFieldContainer[_membership_pb2.ProgressEntry]
    clip: float
    round: int
    def __init__(self, protocol: _Optional[int] = ..., run_id: _Optional[str] = ..., schema: _Optional[bytes] = ..., initiator: _Optional[str] = ..., boot: _Optional[int] = ..., exchange_id: _Optional[int] = ..., responder: _Optional[str] = ..., responder_boot: _Optional[int] = ..., codec: _Optional[_Union[Codec, str]] = ..., chunk_bytes: _Optional[int] = ..., chunk_count: _Optional[int] = ..., step: _Optional[int] = ..., progress: _Optional[_Iterable[_Union[_membership_pb2.ProgressEntry, _Mapping]]] = ..., clip: _Optional[float] = ..., round: _Optional[int] = ...) -> None: ...

class Accept(_message.Message):
    __slots__ = ("step", "progress", "round")
    STEP_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    step: int
    progress: _containers.RepeatedCompositeFieldContainer[_membership_pb2.ProgressEntry]
    round: int
    def __init__(self, step: _Optional[int] = ..., progress: _Optional[_Iterable[_Union[_membership_pb2.ProgressEntry, _Mapping]]] = ..., round: _Optional[int] = ...) -> None: ...

class Decline(_message.Message):
    __slots__ = ("reason", "detail")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: DeclineReason
    detail: str
    def __init__(self, reason: _Optional[_Union[DeclineReason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("index", "applied_through", "data", "scale")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    APPLIED_THROUGH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    index: int
    applied_through: int
    data: bytes
    scale: float
    def __init__(self, index: _Optional[int] = ..., applied_through: _Optional[int] = ..., data: _Optional[bytes] = ..., scale: _Optional[float] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("reason", "index")
    REASON_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    reason: AbortReason
    index: int
    def __init__(self, reason: _Optional[_Union[AbortReason, str]] = ..., index: _Optional[int] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("applied_through",)
    APPLIED_THROUGH_FIELD_NUMBER: _ClassVar[int]
    applied_through: int
    def __init__(self, applied_through: _Optional[int] = ...) -> None: ...

class ExchangeFrame(_message.Message):
    __slots__ = ("open", "accept", "decline", "chunk", "abort", "close")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    DECLINE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    open: Open
    accept: Accept
    decline: Decline
    chunk: Chunk
    abort: Abort
    close: Close
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., accept: _Optional[_Union[Accept, _Mapping]] = ..., decline: _Optional[_Union[Decline, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., abort: _Optional[_Union[Abort, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ("run_id", "initiator", "boot", "exchange_id", "applied_through", "responder", "responder_boot")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    INITIATOR_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    APPLIED_THROUGH_FIELD_NUMBER: _ClassVar[int]
    RESPONDER_FIELD_NUMBER: _ClassVar[int]
    RESPONDER_BOOT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    initiator: str
    boot: int
    exchange_id: int
    applied_through: int
    responder: str
    responder_boot: int
    def __init__(self, run_id: _Optional[str] = ..., initiator: _Optional[str] = ..., boot: _Optional[int] = ..., exchange_id: _Optional[int] = ..., applied_through: _Optional[int] = ..., responder: _Optional[str] = ..., responder_boot: _Optional[int] = ...) -> None: ...

class SettleResponse(_message.Message):
    __slots__ = ("outcome", "reverted")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REVERTED_FIELD_NUMBER: _ClassVar[int]
    outcome: SettleOutcome
    reverted: int
    def __init__(self, outcome: _Optional[_Union[SettleOutcome, str]] = ..., reverted: _Optional[int] = ...) -> None: ...

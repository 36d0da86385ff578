from adpsgd_node.wire.v1 import membership_pb2 as _membership_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Segment(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEGMENT_UNSPECIFIED: _ClassVar[Segment]
    SEGMENT_PARAMETERS: _ClassVar[Segment]
    SEGMENT_BUFFERS: _ClassVar[Segment]
SEGMENT_UNSPECIFIED: Segment
SEGMENT_PARAMETERS: Segment
SEGMENT_BUFFERS: Segment

class TensorSpec(_message.Message):
    __slots__ = ("name", "shape", "dtype", "segment")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    segment: Segment
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., segment: _Optional[_Union[Segment, str]] = ...) -> None: ...

class OfferRequest(_message.Message):
    __slots__ = ("protocol", "run_id", "schema", "source", "algorithm")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run_id: str
    schema: bytes
    source: _membership_pb2.Member
    algorithm: str
    def __init__(self, protocol: _Optional[int] = ..., run_id: _Optional[str] = ..., schema: _Optional[bytes] = ..., source: _Optional[_Union[_membership_pb2.Member, _Mapping]] = ..., algorithm: _Optional[str] = ...) -> None: ...

class OfferResponse(_message.Message):
    __slots__ = ("refusal", "source", "has_model", "step", "tensors", "has_checkpoint", "checkpoint_steps", "checkpoint_samples")
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    HAS_MODEL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    HAS_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_STEPS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    refusal: _membership_pb2.Refusal
    source: _membership_pb2.Member
    has_model: bool
    step: int
    tensors: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    has_checkpoint: bool
    checkpoint_steps: int
    checkpoint_samples: int
    def __init__(self, refusal: _Optional[_Union[_membership_pb2.Refusal, _Mapping]] = ..., source: _Optional[_Union[_membership_pb2.Member, _Mapping]] = ..., has_model: _Optional[bool] = ..., step: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., has_checkpoint: _Optional[bool] = ..., checkpoint_steps: _Optional[int] = ..., checkpoint_samples: _Optional[int] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("protocol", "run_id", "schema", "first_chunk", "chunk_count")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    FIRST_CHUNK_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run_id: str
    schema: bytes
    first_chunk: int
    chunk_count: int
    def __init__(self, protocol: _Optional[int] = ..., run_id: _Optional[str] = ..., schema: _Optional[bytes] = ..., first_chunk: _Optional[int] = ..., chunk_count: _Optional[int] = ...) -> None: ...

class FetchHeader(_message.Message):
    __slots__ = ("refusal", "chunk_count", "chunk_bytes", "step", "retry_after_ms")
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    refusal: _membership_pb2.Refusal
    chunk_count: int
    chunk_bytes: int
    step: int
    retry_after_ms: int
    def __init__(self, refusal: _Optional[_Union[_membership_pb2.Refusal, _Mapping]] = ..., chunk_count: _Optional[int] = ..., chunk_bytes: _Optional[int] = ..., step: _Optional[int] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class FetchChunk(_message.Message):
    __slots__ = ("index", "crc32", "data")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    index: int
    crc32: int
    data: bytes
    def __init__(self, index: _Optional[int] = ..., crc32: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class FetchTrailer(_message.Message):
    __slots__ = ("crc32",)
    CRC32_FIELD_NUMBER: _ClassVar[int]
    crc32: int
    def __init__(self, crc32: _Optional[int] = ...) -> None: ...

class FetchFrame(_message.Message):
    __slots__ = ("request", "header", "chunk", "trailer")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    request: FetchRequest
    header: FetchHeader
    chunk: FetchChunk
    trailer: FetchTrailer
    def __init__(self, request: _Optional[_Union[FetchRequest, _Mapping]] = ..., header: _Optional[_Union[FetchHeader, _Mapping]] = ..., chunk: _Optional[_Union[FetchChunk, _Mapping]] = ..., trailer: _Optional[_Union[FetchTrailer, _Mapping]] = ...) -> None: ...

class WorldRequest(_message.Message):
    __slots__ = ("protocol", "run_id", "source", "size")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run_id: str
    source: _membership_pb2.Member
    size: int
    def __init__(self, protocol: _Optional[int] = ..., run_id: _Optional[str] = ..., source: _Optional[_Union[_membership_pb2.Member, _Mapping]] = ..., size: _Optional[int] = ...) -> None: ...

class WorldResponse(_message.Message):
    __slots__ = ("refusal", "source", "size", "members", "rendezvous")
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    RENDEZVOUS_FIELD_NUMBER: _ClassVar[int]
    refusal: _membership_pb2.Refusal
    source: _membership_pb2.Member
    size: int
    members: _containers.RepeatedCompositeFieldContainer[_membership_pb2.Member]
    rendezvous: str
    def __init__(self, refusal: _Optional[_Union[_membership_pb2.Refusal, _Mapping]] = ..., source: _Optional[_Union[_membership_pb2.Member, _Mapping]] = ..., size: _Optional[int] = ..., members: _Optional[_Iterable[_Union[_membership_pb2.Member, _Mapping]]] = ..., rendezvous: _Optional[str] = ...) -> None: ...

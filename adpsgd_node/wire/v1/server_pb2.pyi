from adpsgd_node.wire.v1 import exchange_pb2 as _exchange_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UpdateOpen(_message.Message):
    __slots__ = ("protocol", "run_id", "schema", "worker", "boot", "server", "server_boot", "codec", "chunk_bytes", "chunk_count", "servers")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    SERVER_BOOT_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    SERVERS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run_id: str
    schema: bytes
    worker: str
    boot: int
    server: str
    server_boot: int
    codec: _exchange_pb2.Codec
    chunk_bytes: int
    chunk_count: int
    servers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, protocol: _Optional[int] = ..., run_id: _Optional[str] = ..., schema: _Optional[bytes] = ..., worker: _Optional[str] = ..., boot: _Optional[int] = ..., server: _Optional[str] = ..., server_boot: _Optional[int] = ..., codec: _Optional[_Union[_exchange_pb2.Codec, str]] = ..., chunk_bytes: _Optional[int] = ..., chunk_count: _Optional[int] = ..., servers: _Optional[_Iterable[str]] = ...) -> None: ...

class UpdateAccept(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class Push(_message.Message):
    __slots__ = ("number", "version", "chunks", "momentum", "nesterov")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    NESTEROV_FIELD_NUMBER: _ClassVar[int]
    number: int
    version: int
    chunks: int
    momentum: float
    nesterov: bool
    def __init__(self, number: _Optional[int] = ..., version: _Optional[int] = ..., chunks: _Optional[int] = ..., momentum: _Optional[float] = ..., nesterov: _Optional[bool] = ...) -> None: ...

class Pulled(_message.Message):
    __slots__ = ("version", "staleness")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    version: int
    staleness: int
    def __init__(self, version: _Optional[int] = ..., staleness: _Optional[int] = ...) -> None: ...

class UpdateFrame(_message.Message):
    __slots__ = ("open", "accept", "decline", "chunk", "push", "pulled")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    DECLINE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    PUSH_FIELD_NUMBER: _ClassVar[int]
    PULLED_FIELD_NUMBER: _ClassVar[int]
    open: UpdateOpen
    accept: UpdateAccept
    decline: _exchange_pb2.Decline
    chunk: _exchange_pb2.Chunk
    push: Push
    pulled: Pulled
    def __init__(self, open: _Optional[_Union[UpdateOpen, _Mapping]] = ..., accept: _Optional[_Union[UpdateAccept, _Mapping]] = ..., decline: _Optional[_Union[_exchange_pb2.Decline, _Mapping]] = ..., chunk: _Optional[_Union[_exchange_pb2.Chunk, _Mapping]] = ..., push: _Optional[_Union[Push, _Mapping]] = ..., pulled: _Optional[_Union[Pulled, _Mapping]] = ...) -> None: ...

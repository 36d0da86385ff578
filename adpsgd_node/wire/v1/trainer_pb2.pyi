from adpsgd_node.wire.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Attach(_message.Message):
    __slots__ = ("pid", "tensors", "dataset_size")
    PID_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    DATASET_SIZE_FIELD_NUMBER: _ClassVar[int]
    pid: int
    tensors: _containers.RepeatedCompositeFieldContainer[_model_pb2.TensorSpec]
    dataset_size: int
    def __init__(self, pid: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[_model_pb2.TensorSpec, _Mapping]]] = ..., dataset_size: _Optional[int] = ...) -> None: ...

class Attached(_message.Message):
    __slots__ = ("daemon_pid", "node", "run_id", "schema", "chunk_bytes", "resumed", "output", "state_folder", "algorithm", "slow_factor", "emulate_step_s", "host")
    DAEMON_PID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    STATE_FOLDER_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    SLOW_FACTOR_FIELD_NUMBER: _ClassVar[int]
    EMULATE_STEP_S_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    daemon_pid: int
    node: str
    run_id: str
    schema: bytes
    chunk_bytes: int
    resumed: bool
    output: str
    state_folder: str
    algorithm: str
    slow_factor: float
    emulate_step_s: float
    host: str
    def __init__(self, daemon_pid: _Optional[int] = ..., node: _Optional[str] = ..., run_id: _Optional[str] = ..., schema: _Optional[bytes] = ..., chunk_bytes: _Optional[int] = ..., resumed: _Optional[bool] = ..., output: _Optional[str] = ..., state_folder: _Optional[str] = ..., algorithm: _Optional[str] = ..., slow_factor: _Optional[float] = ..., emulate_step_s: _Optional[float] = ..., host: _Optional[str] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("port",)
    PORT_FIELD_NUMBER: _ClassVar[int]
    port: int
    def __init__(self, port: _Optional[int] = ...) -> None: ...

class Go(_message.Message):
    __slots__ = ("adopted", "donor", "restore", "world_size", "rank", "rendezvous")
    ADOPTED_FIELD_NUMBER: _ClassVar[int]
    DONOR_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    RENDEZVOUS_FIELD_NUMBER: _ClassVar[int]
    adopted: bool
    donor: str
    restore: str
    world_size: int
    rank: int
    rendezvous: str
    def __init__(self, adopted: _Optional[bool] = ..., donor: _Optional[str] = ..., restore: _Optional[str] = ..., world_size: _Optional[int] = ..., rank: _Optional[int] = ..., rendezvous: _Optional[str] = ...) -> None: ...

class Settle(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Agreed(_message.Message):
    __slots__ = ("consensus_distance", "steps_total", "samples_total", "members")
    CONSENSUS_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    consensus_distance: float
    steps_total: int
    samples_total: int
    members: int
    def __init__(self, consensus_distance: _Optional[float] = ..., steps_total: _Optional[int] = ..., samples_total: _Optional[int] = ..., members: _Optional[int] = ...) -> None: ...

class Saved(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("code", "detail")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class TrainerFrame(_message.Message):
    __slots__ = ("attach", "attached", "ready", "go", "settle", "agreed", "saved", "failed")
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    GO_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    AGREED_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    attach: Attach
    attached: Attached
    ready: Ready
    go: Go
    settle: Settle
    agreed: Agreed
    saved: Saved
    failed: Failed
    def __init__(self, attach: _Optional[_Union[Attach, _Mapping]] = ..., attached: _Optional[_Union[Attached, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., go: _Optional[_Union[Go, _Mapping]] = ..., settle: _Optional[_Union[Settle, _Mapping]] = ..., agreed: _Optional[_Union[Agreed, _Mapping]] = ..., saved: _Optional[_Union[Saved, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ...) -> None: ...

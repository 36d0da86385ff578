from adpsgd_node.wire.v1 import membership_pb2 as _membership_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MemberStatus(_message.Message):
    __slots__ = ("member", "steps", "samples", "neighbor", "quarantine")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOR_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_FIELD_NUMBER: _ClassVar[int]
    member: _membership_pb2.Member
    steps: int
    samples: int
    neighbor: bool
    quarantine: str
    def __init__(self, member: _Optional[_Union[_membership_pb2.Member, _Mapping]] = ..., steps: _Optional[int] = ..., samples: _Optional[int] = ..., neighbor: _Optional[bool] = ..., quarantine: _Optional[str] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("self", "run_id", "version", "insecure", "algorithm", "topology", "codec", "uptime_s", "step", "samples", "samples_per_s", "loss", "accuracy", "exchanges_initiated", "exchanges_responded", "consensus_distance", "steps_total", "samples_total", "samples_target", "unsettled", "problem", "members", "http_address", "trainer_pid", "trainer_restarts", "output", "checkpoint", "checkpoint_age_s")
    SELF_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INSECURE_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_S_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    EXCHANGES_INITIATED_FIELD_NUMBER: _ClassVar[int]
    EXCHANGES_RESPONDED_FIELD_NUMBER: _ClassVar[int]
    CONSENSUS_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_TARGET_FIELD_NUMBER: _ClassVar[int]
    UNSETTLED_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    HTTP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TRAINER_PID_FIELD_NUMBER: _ClassVar[int]
    TRAINER_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_AGE_S_FIELD_NUMBER: _ClassVar[int]
    self: _membership_pb2.Member
    run_id: str
    version: str
    insecure: bool
    algorithm: str
    topology: str
    codec: str
    uptime_s: float
    step: int
    samples: int
    samples_per_s: float
    loss: float
    accuracy: float
    exchanges_initiated: int
    exchanges_responded: int
    consensus_distance: float
    steps_total: int
    samples_total: int
    samples_target: int
    unsettled: int
    problem: str
    members: _containers.RepeatedCompositeFieldContainer[MemberStatus]
    http_address: str
    trainer_pid: int
    trainer_restarts: int
    output: str
    checkpoint: str
    checkpoint_age_s: float
    def __init__(self_, self: _Optional[_Union[_membership_pb2.Member, _Mapping]] = ..., run_id: _Optional[str] = ..., version: _Optional[str] = ..., insecure: _Optional[bool] = ..., algorithm: _Optional[str] = ..., topology: _Optional[str] = ..., codec: _Optional[str] = ..., uptime_s: _Optional[float] = ..., step: _Optional[int] = ..., samples: _Optional[int] = ..., samples_per_s: _Optional[float] = ..., loss: _Optional[float] = ..., accuracy: _Optional[float] = ..., exchanges_initiated: _Optional[int] = ..., exchanges_responded: _Optional[int] = ..., consensus_distance: _Optional[float] = ..., steps_total: _Optional[int] = ..., samples_total: _Optional[int] = ..., samples_target: _Optional[int] = ..., unsettled: _Optional[int] = ..., problem: _Optional[str] = ..., members: _Optional[_Iterable[_Union[MemberStatus, _Mapping]]] = ..., http_address: _Optional[str] = ..., trainer_pid: _Optional[int] = ..., trainer_restarts: _Optional[int] = ..., output: _Optional[str] = ..., checkpoint: _Optional[str] = ..., checkpoint_age_s: _Optional[float] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("timeout_s",)
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    timeout_s: float
    def __init__(self, timeout_s: _Optional[float] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("pid", "timeout_s")
    PID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    pid: int
    timeout_s: float
    def __init__(self, pid: _Optional[int] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ("timeout_s",)
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    timeout_s: float
    def __init__(self, timeout_s: _Optional[float] = ...) -> None: ...

class CheckpointResponse(_message.Message):
    __slots__ = ("path", "problem")
    PATH_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    path: str
    problem: str
    def __init__(self, path: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

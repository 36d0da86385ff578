from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemberState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_STATE_UNSPECIFIED: _ClassVar[MemberState]
    MEMBER_STATE_ALIVE: _ClassVar[MemberState]
    MEMBER_STATE_SUSPECT: _ClassVar[MemberState]
    MEMBER_STATE_DEAD: _ClassVar[MemberState]
    MEMBER_STATE_LEFT: _ClassVar[MemberState]

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_JOINING: _ClassVar[Phase]
    PHASE_IDLE: _ClassVar[Phase]
    PHASE_INITIALIZING: _ClassVar[Phase]
    PHASE_TRAINING: _ClassVar[Phase]
    PHASE_SETTLING: _ClassVar[Phase]
    PHASE_AGREED: _ClassVar[Phase]
    PHASE_FINISHED: _ClassVar[Phase]
    PHASE_POISONED: _ClassVar[Phase]
    PHASE_DRAINING: _ClassVar[Phase]

class RefusalReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_REASON_UNSPECIFIED: _ClassVar[RefusalReason]
    REFUSAL_REASON_RUN: _ClassVar[RefusalReason]
    REFUSAL_REASON_PROTOCOL: _ClassVar[RefusalReason]
    REFUSAL_REASON_NAME_IN_USE: _ClassVar[RefusalReason]
    REFUSAL_REASON_FULL: _ClassVar[RefusalReason]
    REFUSAL_REASON_SCHEMA: _ClassVar[RefusalReason]
MEMBER_STATE_UNSPECIFIED: MemberState
MEMBER_STATE_ALIVE: MemberState
MEMBER_STATE_SUSPECT: MemberState
MEMBER_STATE_DEAD: MemberState
MEMBER_STATE_LEFT: MemberState
PHASE_UNSPECIFIED: Phase
PHASE_JOINING: Phase
PHASE_IDLE: Phase
PHASE_INITIALIZING: Phase
PHASE_TRAINING: Phase
PHASE_SETTLING: Phase
PHASE_AGREED: Phase
PHASE_FINISHED: Phase
PHASE_POISONED: Phase
PHASE_DRAINING: Phase
REFUSAL_REASON_UNSPECIFIED: RefusalReason
REFUSAL_REASON_RUN: RefusalReason
REFUSAL_REASON_PROTOCOL: RefusalReason
REFUSAL_REASON_NAME_IN_USE: RefusalReason
REFUSAL_REASON_FULL: RefusalReason
REFUSAL_REASON_SCHEMA: RefusalReason

class Member(_message.Message):
    __slots__ = ("name", "boot", "address", "incarnation", "state", "phase", "outbound_only", "suspected_by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    OUTBOUND_ONLY_FIELD_NUMBER: _ClassVar[int]
    SUSPECTED_BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    boot: int
    address: str
    incarnation: int
    state: MemberState
    phase: Phase
    outbound_only: bool
    suspected_by: str
    def __init__(self, name: _Optional[str] = ..., boot: _Optional[int] = ..., address: _Optional[str] = ..., incarnation: _Optional[int] = ..., state: _Optional[_Union[MemberState, str]] = ..., phase: _Optional[_Union[Phase, str]] = ..., outbound_only: _Optional[bool] = ..., suspected_by: _Optional[str] = ...) -> None: ...

class ProgressEntry(_message.Message):
    __slots__ = ("name", "boot", "steps", "samples")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    name: str
    boot: int
    steps: int
    samples: int
    def __init__(self, name: _Optional[str] = ..., boot: _Optional[int] = ..., steps: _Optional[int] = ..., samples: _Optional[int] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("sequence", "target", "target_boot")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TARGET_BOOT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    target: str
    target_boot: int
    def __init__(self, sequence: _Optional[int] = ..., target: _Optional[str] = ..., target_boot: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class PingRequest(_message.Message):
    __slots__ = ("sequence", "target", "target_boot", "target_address")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TARGET_BOOT_FIELD_NUMBER: _ClassVar[int]
    TARGET_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    target: str
    target_boot: int
    target_address: str
    def __init__(self, sequence: _Optional[int] = ..., target: _Optional[str] = ..., target_boot: _Optional[int] = ..., target_address: _Optional[str] = ...) -> None: ...

class Packet(_message.Message):
    __slots__ = ("protocol", "run_id", "source", "updates", "progress", "ping", "ack", "ping_request")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    PING_REQUEST_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run_id: str
    source: Member
    updates: _containers.RepeatedCompositeFieldContainer[Member]
    progress: _containers.RepeatedCompositeFieldContainer[ProgressEntry]
    ping: Ping
    ack: Ack
    ping_request: PingRequest
    def __init__(self, protocol: _Optional[int] = ..., run_id: _Optional[str] = ..., source: _Optional[_Union[Member, _Mapping]] = ..., updates: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., progress: _Optional[_Iterable[_Union[ProgressEntry, _Mapping]]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., ping_request: _Optional[_Union[PingRequest, _Mapping]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason", "detail")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: RefusalReason
    detail: str
    def __init__(self, reason: _Optional[_Union[RefusalReason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("protocol", "run_id", "source", "progress", "members")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run_id: str
    source: Member
    progress: _containers.RepeatedCompositeFieldContainer[ProgressEntry]
    members: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, protocol: _Optional[int] = ..., run_id: _Optional[str] = ..., source: _Optional[_Union[Member, _Mapping]] = ..., progress: _Optional[_Iterable[_Union[ProgressEntry, _Mapping]]] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("refusal", "source", "members", "progress")
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    refusal: Refusal
    source: Member
    members: _containers.RepeatedCompositeFieldContainer[Member]
    progress: _containers.RepeatedCompositeFieldContainer[ProgressEntry]
    def __init__(self, refusal: _Optional[_Union[Refusal, _Mapping]] = ..., source: _Optional[_Union[Member, _Mapping]] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., progress: _Optional[_Iterable[_Union[ProgressEntry, _Mapping]]] = ...) -> None: ...

class DeliverResponse(_message.Message):
    __slots__ = ("packets",)
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    packets: _containers.RepeatedCompositeFieldContainer[Packet]
    def __init__(self, packets: _Optional[_Iterable[_Union[Packet, _Mapping]]] = ...) -> None: ...

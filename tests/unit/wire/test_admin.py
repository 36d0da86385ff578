"""A status survives its way over the socket, and bytes that are none are refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest

from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.errors import WireError
from adpsgd_node.ids import Address, NodeId
from adpsgd_node.wire import admin
from adpsgd_node.wire.admin import Draining, MemberStatus, Status, decode_status, encode_status
from adpsgd_node.wire.v1 import admin_pb2
from support.status import example_status


def test_status_comes_out_as_it_went_in() -> None:
    status = example_status()
    assert decode_status(encode_status(status)) == status


def test_every_field_of_the_schema_is_carried() -> None:
    message = admin_pb2.StatusResponse.FromString(encode_status(example_status()))
    carried = {field.name for field, _ in message.ListFields()}
    assert carried == {field.name for field in admin_pb2.StatusResponse.DESCRIPTOR.fields}
    names = {field.name for field in dataclasses.fields(Status)}
    assert names - {"self_member"} | {"self"} == carried


def test_unknown_loss_stays_unknown() -> None:
    status = decode_status(encode_status(dataclasses.replace(example_status(), loss=math.nan)))
    assert math.isnan(status.loss)


@pytest.mark.parametrize("state", list(MemberState))
@pytest.mark.parametrize("phase", list(Phase))
def test_every_state_and_phase_has_its_number(state: MemberState, phase: Phase) -> None:
    member = Member(NodeId("n", 3), Address("h:1"), 4, state, phase)
    status = dataclasses.replace(example_status(), members=(MemberStatus(member, 1, 2, False),))
    assert decode_status(encode_status(status)).members[0].member == member


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xff\xff", b"<html>", admin_pb2.StatusResponse(run_id="r").SerializeToString()]
)
def test_bytes_that_are_no_status_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_status(data)


def test_member_with_an_invalid_name_or_state_is_refused() -> None:
    for name, state in (("a/b", 1), ("a", 9)):
        message = admin_pb2.StatusResponse.FromString(encode_status(example_status()))
        message.members[0].member.name = name
        message.members[0].member.state = state  # type: ignore[assignment]
        with pytest.raises(WireError):
            decode_status(message.SerializeToString())


def test_status_beyond_a_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_status(example_status())
    monkeypatch.setattr(admin, "MAX_MEMBERS", 1)
    with pytest.raises(WireError, match="2 members"):
        decode_status(data)
    monkeypatch.setattr(admin, "MAX_STATUS_BYTES", len(data) - 1)
    with pytest.raises(WireError, match=f"{len(data)} bytes"):
        decode_status(data)


@pytest.mark.parametrize("seconds", [0.0, 2.5, admin.MAX_TIMEOUT_S])
def test_the_calls_seconds_come_out_as_they_went_in(seconds: float) -> None:
    assert admin.decode_drain_request(admin.encode_drain_request(seconds)) == seconds
    assert admin.decode_checkpoint_request(admin.encode_checkpoint_request(seconds)) == seconds
    draining = Draining(pid=4711, timeout_s=seconds)
    assert admin.decode_draining(admin.encode_draining(draining)) == draining


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, admin.MAX_TIMEOUT_S * 1.001])
def test_seconds_out_of_range_are_refused(seconds: float) -> None:
    for decode, message in (
        (admin.decode_drain_request, admin_pb2.DrainRequest(timeout_s=seconds)),
        (admin.decode_checkpoint_request, admin_pb2.CheckpointRequest(timeout_s=seconds)),
        (admin.decode_draining, admin_pb2.DrainResponse(pid=1, timeout_s=seconds)),
    ):
        with pytest.raises(WireError, match="timeout_s"):
            decode(message.SerializeToString())


def test_a_checkpoints_path_or_problem_comes_out_as_it_went_in() -> None:
    assert admin.decode_checkpointed(admin.encode_checkpointed("/out/000001")) == ("/out/000001", "")
    assert admin.decode_checkpointed(admin.encode_checkpointed("", "disk full")) == ("", "disk full")
    assert admin.decode_checkpointed(admin.encode_checkpointed("", "x" * 5000)) == ("", "x" * 1024)


@pytest.mark.parametrize(
    "message",
    [
        admin_pb2.CheckpointResponse(),
        admin_pb2.CheckpointResponse(path="/out", problem="disk full"),
        admin_pb2.CheckpointResponse(path="p" * (admin.MAX_PATH_LENGTH + 1)),
        admin_pb2.CheckpointResponse(problem="p" * (admin.MAX_CALL_BYTES + 1)),
    ],
)
def test_an_answer_on_a_checkpoint_that_says_nothing_or_too_much_is_refused(
    message: admin_pb2.CheckpointResponse,
) -> None:
    with pytest.raises(WireError):
        admin.decode_checkpointed(message.SerializeToString())


@pytest.mark.parametrize("decode", [admin.decode_drain_request, admin.decode_draining, admin.decode_checkpointed])
def test_bytes_that_are_no_call_are_refused(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(WireError):
        decode(b"\xff\xff\xff")

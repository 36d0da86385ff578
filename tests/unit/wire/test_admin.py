"""A status survives its way over the socket, and bytes that are none are refused."""

from __future__ import annotations

import dataclasses
import math

import pytest

from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.errors import WireError
from adpsgd_node.ids import Address, NodeId
from adpsgd_node.wire import admin
from adpsgd_node.wire.admin import MemberStatus, Status, decode_status, encode_status
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

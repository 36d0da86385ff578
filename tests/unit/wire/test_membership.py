from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpsgd_node.core.membership.config import (
    MAX_MEMBERS,
    MAX_PROGRESS_PER_PACKET,
    MAX_TOMBSTONES,
    MAX_UPDATES_PER_PACKET,
)
from adpsgd_node.core.membership.mailbox import MAX_LETTERS
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.membership.packet import (
    Ack,
    JoinRequest,
    JoinResponse,
    Packet,
    Ping,
    PingRequest,
    Refusal,
    RefusalReason,
)
from adpsgd_node.core.progress import MAX_PROGRESS_ENTRIES, ProgressEntry
from adpsgd_node.errors import WireError
from adpsgd_node.ids import MAX_BOOT, Address, NodeId, RunId
from adpsgd_node.wire import limits
from adpsgd_node.wire.membership import (
    decode_deliver_response,
    decode_join_request,
    decode_join_response,
    decode_packet,
    encode_deliver_response,
    encode_join_request,
    encode_join_response,
    encode_packet,
)
from adpsgd_node.wire.v1 import membership_pb2 as pb

LONGEST_NAME = "n" * 63
LONGEST_ADDRESS = Address("h" * (limits.MAX_ADDRESS_LENGTH - 6) + ":65535")

node = st.builds(NodeId, st.sampled_from(["a", "node-1.x_y", LONGEST_NAME]), st.integers(0, MAX_BOOT))
address = st.sampled_from([Address("a:1"), Address("[::1]:7000"), LONGEST_ADDRESS])
member = st.builds(
    Member,
    node,
    address,
    st.integers(0, limits.MAX_INCARNATION),
    st.sampled_from(MemberState),
    st.sampled_from(Phase),
    st.booleans(),
    st.sampled_from(["", "b", LONGEST_NAME]),
)
count = st.integers(0, limits.MAX_COUNT)
progress = st.lists(st.builds(ProgressEntry, node, count, count), max_size=5).map(tuple)
sequence = st.integers(0, MAX_BOOT)
body = st.one_of(
    st.none(),
    st.builds(Ping, sequence, node),
    st.builds(Ack, sequence),
    st.builds(PingRequest, sequence, node, address),
)
protocol = st.integers(0, 2**32 - 1)
run = st.just(RunId("run"))
members = st.lists(member, max_size=5).map(tuple)
packet = st.builds(Packet, protocol=protocol, run_id=run, source=member, updates=members, progress=progress, body=body)
refusal = st.none() | st.builds(Refusal, st.sampled_from(RefusalReason), st.text(max_size=20))


@given(packet)
def test_packet_comes_back_as_it_was(sent: Packet) -> None:
    assert decode_packet(encode_packet(sent)) == sent


@given(st.builds(JoinRequest, protocol=protocol, run_id=run, source=member, progress=progress, members=members))
def test_join_request_comes_back_as_it_was(sent: JoinRequest) -> None:
    assert decode_join_request(encode_join_request(sent)) == sent


@given(st.builds(JoinResponse, refusal=refusal, source=member, members=members, progress=progress))
def test_join_response_comes_back_as_it_was(sent: JoinResponse) -> None:
    assert decode_join_response(encode_join_response(sent)) == sent


@given(st.binary(max_size=200))
def test_garbage_is_a_wire_error_or_a_valid_message(data: bytes) -> None:
    for decode in (decode_packet, decode_deliver_response, decode_join_request, decode_join_response):
        try:
            decode(data)
        except WireError:
            continue


LARGEST = Member(
    NodeId(LONGEST_NAME, MAX_BOOT),
    LONGEST_ADDRESS,
    limits.MAX_INCARNATION,
    MemberState.SUSPECT,
    Phase.POISONED,
    outbound_only=True,
    suspected_by=LONGEST_NAME,
)
LARGEST_ENTRY = ProgressEntry(NodeId(LONGEST_NAME, MAX_BOOT), limits.MAX_COUNT, limits.MAX_COUNT)


def test_largest_packet_a_node_may_send_fits_the_byte_limit() -> None:
    sent = Packet(
        protocol=2**32 - 1,
        run_id=RunId(LONGEST_NAME),
        source=LARGEST,
        updates=(LARGEST,) * MAX_UPDATES_PER_PACKET,
        progress=(LARGEST_ENTRY,) * (MAX_PROGRESS_PER_PACKET + 1),
        body=PingRequest(2**64 - 1, LARGEST.id, LARGEST.address),
    )
    assert decode_packet(encode_packet(sent)) == sent


def test_largest_join_answer_a_node_may_send_fits_the_byte_limit() -> None:
    sent = JoinResponse(
        refusal=None,
        source=LARGEST,
        members=(LARGEST,) * (MAX_MEMBERS + MAX_TOMBSTONES),
        progress=(LARGEST_ENTRY,) * MAX_PROGRESS_ENTRIES,
    )
    assert len(encode_join_response(sent)) <= limits.MAX_JOIN_BYTES
    asked = JoinRequest(
        protocol=2**32 - 1, run_id=RunId(LONGEST_NAME), source=LARGEST, progress=sent.progress, members=sent.members
    )
    assert decode_join_request(encode_join_request(asked)) == asked


def test_more_members_than_a_run_can_have_are_refused_in_question_and_answer() -> None:
    too_many = pb.JoinRequest(protocol=1, run_id="run", source=good().source)
    too_many.members.extend([good().source] * (MAX_MEMBERS + MAX_TOMBSTONES + 1))
    with pytest.raises(WireError, match="number of members"):
        decode_join_request(too_many.SerializeToString())
    answer = pb.JoinResponse(source=good().source, members=too_many.members)
    with pytest.raises(WireError, match="number of members"):
        decode_join_response(answer.SerializeToString())


def good() -> pb.Packet:
    source = pb.Member(name="a", boot=1, address="a:1", state=pb.MEMBER_STATE_ALIVE, phase=pb.PHASE_IDLE)
    return pb.Packet(protocol=1, run_id="run", source=source)


def test_packet_of_the_bad_examples_is_otherwise_good() -> None:
    assert decode_packet(good().SerializeToString()).source.name == "a"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.ClearField("source"), "source is missing"),
        (lambda p: setattr(p, "run_id", ""), "run_id"),
        (lambda p: setattr(p.source, "name", "no spaces please"), r"source\.name"),
        (lambda p: setattr(p.source, "name", "n" * 64), r"source\.name"),
        (lambda p: setattr(p.source, "boot", MAX_BOOT + 1), r"boot of source"),
        (lambda p: p.progress.add(name="a", boot=MAX_BOOT + 1), r"boot of progress"),
        (lambda p: setattr(p.source, "address", "nowhere"), "no host:port"),
        (lambda p: setattr(p.source, "address", "a:0"), "no host:port"),
        (lambda p: setattr(p.source, "address", "a:65536"), "no host:port"),
        (lambda p: setattr(p.source, "address", "a b:1"), "no host:port"),
        (lambda p: setattr(p.source, "address", "h" * 260 + ":1"), r"length of source\.address"),
        (lambda p: setattr(p.source, "state", 0), r"source\.state"),
        (lambda p: setattr(p.source, "phase", 99), r"source\.phase"),
        (lambda p: setattr(p.source, "suspected_by", "no spaces please"), r"source\.suspected_by"),
        (lambda p: setattr(p.source, "incarnation", limits.MAX_INCARNATION + 1), "incarnation"),
        (lambda p: p.updates.extend([p.source] * (MAX_UPDATES_PER_PACKET + 1)), "number of updates"),
        (
            lambda p: p.progress.extend([pb.ProgressEntry(name="a")] * (MAX_PROGRESS_PER_PACKET + 2)),
            "number of progress entries",
        ),
        (lambda p: p.progress.add(name="a", steps=limits.MAX_COUNT + 1), r"progress\.steps"),
        (lambda p: p.progress.add(name="a", samples=limits.MAX_COUNT + 1), r"progress\.samples"),
        (lambda p: p.ping.SetInParent(), r"ping\.target"),
        (lambda p: setattr(p.ping_request, "target", "a"), r"ping_request\.target_address"),
    ],
)
def test_field_beyond_its_limit_is_refused_by_name(change: object, message: str) -> None:
    bad = good()
    change(bad)  # type: ignore[operator]
    with pytest.raises(WireError, match=message):
        decode_packet(bad.SerializeToString())


@given(st.lists(packet, max_size=3))
def test_answer_with_waiting_packets_comes_back_as_it_was(sent: list[Packet]) -> None:
    assert decode_deliver_response(encode_deliver_response(sent)) == tuple(sent)


def test_answer_to_whom_nothing_waits_for_is_empty() -> None:
    assert encode_deliver_response(()) == b""
    assert decode_deliver_response(b"") == ()


def test_answer_with_more_packets_than_can_wait_is_refused() -> None:
    message = pb.DeliverResponse(packets=[good()] * (MAX_LETTERS + 1))
    with pytest.raises(WireError, match="number of packets"):
        decode_deliver_response(message.SerializeToString())
    with pytest.raises(WireError, match="DeliverResponse"):
        decode_deliver_response(bytes(limits.MAX_DELIVER_BYTES + 1))


def test_oversized_packet_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(WireError, match="bytes of a Packet"):
        decode_packet(b"\xff" * (limits.MAX_PACKET_BYTES + 1))


def test_overlong_detail_of_a_refusal_is_cut_by_the_sender() -> None:
    sent = JoinResponse(refusal=Refusal(RefusalReason.FULL, "x" * (limits.MAX_DETAIL_LENGTH + 1)), source=LARGEST)
    received = decode_join_response(encode_join_response(sent)).refusal
    assert received is not None
    assert received.detail == "x" * limits.MAX_DETAIL_LENGTH

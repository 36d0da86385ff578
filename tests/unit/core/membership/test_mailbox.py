from __future__ import annotations

from adpsgd_node.core.membership import Member, MemberState, Packet, Phase
from adpsgd_node.core.membership.mailbox import MAX_LETTERS, MAX_MAILBOXES, Mailboxes
from adpsgd_node.core.membership.packet import Ack
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId

SOURCE = Member(NodeId("a", 1), Address("a:1"), 0, MemberState.ALIVE, Phase.IDLE)


def letter(number: int) -> Packet:
    return Packet(protocol=PROTOCOL_VERSION, run_id=RunId("run"), source=SOURCE, body=Ack(number))


def test_letters_are_handed_out_once_and_in_order_to_whom_they_are_meant_for() -> None:
    boxes = Mailboxes()
    boxes.put(NodeId("m", 1), letter(1))
    boxes.put(NodeId("m", 1), letter(2))
    assert boxes.take(NodeId("m", 2)) == (), "another life"
    assert boxes.take(NodeId("m", 1)) == (letter(1), letter(2))
    assert boxes.take(NodeId("m", 1)) == ()


def test_full_box_loses_its_oldest_letter() -> None:
    boxes = Mailboxes()
    for number in range(MAX_LETTERS + 3):
        boxes.put(NodeId("m", 1), letter(number))
    assert boxes.take(NodeId("m", 1)) == tuple(letter(number) for number in range(3, MAX_LETTERS + 3))


def test_number_of_boxes_is_bounded() -> None:
    boxes = Mailboxes()
    for number in range(MAX_MAILBOXES + 10):
        boxes.put(NodeId(f"m{number}", 1), letter(number))
    assert len(boxes) == MAX_MAILBOXES
    assert boxes.take(NodeId("m0", 1)) == ()
    assert boxes.take(NodeId(f"m{MAX_MAILBOXES}", 1)) != ()


def test_box_of_a_dead_member_is_dropped() -> None:
    boxes = Mailboxes()
    boxes.put(NodeId("m", 1), letter(1))
    boxes.drop(NodeId("m", 1))
    assert boxes.take(NodeId("m", 1)) == ()

from __future__ import annotations

import pytest

from adpsgd_node.core.membership.dissemination import Dissemination, retransmit_limit
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.ids import Address, NodeId


def news(name: str, incarnation: int = 0) -> Member:
    return Member(NodeId(name, 1), Address(f"{name}:1"), incarnation, MemberState.ALIVE, Phase.IDLE)


def names(members: tuple[Member, ...]) -> list[str]:
    return [member.name for member in members]


@pytest.mark.parametrize(("members", "limit"), [(1, 8), (9, 8), (99, 8), (100, 12), (1000, 16)])
def test_retransmit_limit_grows_with_the_logarithm_of_the_members(members: int, limit: int) -> None:
    assert retransmit_limit(4, members) == limit


def test_news_sent_least_goes_first() -> None:
    queue = Dissemination(10)
    queue.add(news("a"))
    assert names(queue.take(1, 4)) == ["a"]
    queue.add(news("b"))
    assert names(queue.take(1, 4)) == ["b"]
    assert sorted(names(queue.take(2, 4))) == ["a", "b"]


def test_news_is_dropped_after_its_retransmissions() -> None:
    queue = Dissemination(10)
    queue.add(news("a"))
    assert [names(queue.take(5, 3)) for _ in range(4)] == [["a"], ["a"], ["a"], []]


def test_newer_news_of_a_member_replaces_older_and_starts_afresh() -> None:
    queue = Dissemination(10)
    queue.add(news("a", 1))
    queue.take(1, 2)
    queue.add(news("a", 2))
    assert [member.incarnation for _ in range(3) for member in queue.take(5, 2)] == [2, 2]


def test_a_packet_takes_no_more_than_its_limit() -> None:
    queue = Dissemination(10)
    for name in "abcde":
        queue.add(news(name))
    assert len(queue.take(3, 4)) == 3


def test_full_queue_drops_what_was_sent_most() -> None:
    queue = Dissemination(2)
    queue.add(news("a"))
    queue.take(1, 9)
    queue.add(news("b"))
    queue.add(news("c"))
    assert len(queue) == 2
    assert sorted(names(queue.take(5, 9))) == ["b", "c"]

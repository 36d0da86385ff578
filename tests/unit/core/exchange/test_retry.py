"""When a broken exchange is settled again."""

from __future__ import annotations

from adpsgd_node.core.exchange.retry import SettleRetry

HOUR_S = 3600.0


def test_pauses_double_up_to_the_longest() -> None:
    retry = SettleRetry(now=0.0)
    assert [retry.unanswered() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_dead_peer_is_waited_for_as_long_as_membership_remembers_it() -> None:
    retry = SettleRetry(now=10.0)
    assert not retry.dead(10.0 + HOUR_S)
    assert retry.dead(10.1 + HOUR_S)
    retry.alive(20.0 + HOUR_S)
    assert not retry.dead(20.0 + 2 * HOUR_S)
    assert retry.dead(20.1 + 2 * HOUR_S)


def test_each_answer_that_does_not_come_in_time_doubles_the_time_up_to_the_largest() -> None:
    retry = SettleRetry(now=0.0)
    allowed = []
    for _ in range(6):
        allowed.append(retry.timeout_s)
        retry.timed_out()
    assert allowed == [3.0, 6.0, 12.0, 12.0, 12.0, 12.0]
    retry.dead(1.0)
    assert retry.timeout_s == 3.0

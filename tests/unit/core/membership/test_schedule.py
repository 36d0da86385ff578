from __future__ import annotations

from adpsgd_node.core.membership.schedule import AckOverdue, ProbeDue, ReconnectDue, Schedule


def test_timers_come_out_by_due_time_and_then_in_the_order_set() -> None:
    schedule = Schedule()
    schedule.add(2.0, ProbeDue())
    schedule.add(1.0, AckOverdue(1))
    schedule.add(1.0, AckOverdue(2))
    assert schedule.earliest() == 1.0
    assert [schedule.pop(2.0) for _ in range(4)] == [AckOverdue(1), AckOverdue(2), ProbeDue(), None]


def test_timer_does_not_come_out_before_its_time() -> None:
    schedule = Schedule()
    schedule.add(1.0, ProbeDue())
    assert schedule.pop(0.999) is None
    assert schedule.pop(1.0) == ProbeDue()


def test_postponing_moves_every_timer() -> None:
    schedule = Schedule()
    schedule.add(1.0, ProbeDue())
    schedule.add(3.0, ReconnectDue())
    schedule.postpone(5.0)
    assert schedule.earliest() == 6.0
    assert schedule.pop(7.9) == ProbeDue()
    assert schedule.pop(7.9) is None

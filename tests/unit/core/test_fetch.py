from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from adpsgd_node.core.fetch import JITTER, FetchConfig, FetchPlan
from adpsgd_node.core.fetch_event import (
    AskChunks,
    CancelRequest,
    ChunkArrived,
    FetchDone,
    FetchFailed,
    FetchStarted,
    RangeEnded,
    RequestBroke,
    RequestRefused,
)
from support.planned_fetch import PlannedFetch, VirtualDonor, node

WINDOW = FetchConfig().window


def plan_of(chunks: int, *names: str, config: FetchConfig | None = None) -> FetchPlan:
    return FetchPlan(chunks, [node(name) for name in names], config or FetchConfig(), random.Random(1))


def asks(effects: tuple[object, ...]) -> list[AskChunks]:
    return [effect for effect in effects if isinstance(effect, AskChunks)]


def test_one_donor_gives_everything_once() -> None:
    fetch = PlannedFetch(100, {"a": VirtualDonor()})
    assert fetch.run() == FetchDone(node("a"))
    assert fetch.sent == dict.fromkeys(range(100), 1)
    assert fetch.plan.given == {node("a"): 100}


def test_a_fast_donor_gives_more_and_is_named() -> None:
    fetch = PlannedFetch(300, {"slow": VirtualDonor(chunk_s=0.9), "fast": VirtualDonor(chunk_s=0.1)})
    assert fetch.run() == FetchDone(node("fast"))
    assert fetch.donors["fast"].given > 6 * fetch.donors["slow"].given
    # Alone the fast one would take 30 s; shared as the speeds are, 27 s, and a window of the slow one at the end.
    assert fetch.now < 27 + WINDOW * 0.9


def test_three_donors_of_one_speed_share_the_work_evenly() -> None:
    fetch = PlannedFetch(300, {name: VirtualDonor() for name in "abc"})
    fetch.run()
    assert all(abs(donor.given - 100) <= WINDOW for donor in fetch.donors.values())
    assert fetch.plan.refetched == 0


def test_no_more_donors_are_asked_at_once_than_told() -> None:
    fetch = PlannedFetch(200, {name: VirtualDonor() for name in "abcdef"}, FetchConfig(donors=2))
    fetch.run()
    assert fetch.most_open == 2
    assert {ask.donor.name for _, ask in fetch.asked} == {"a", "b"}, "a donor that gives is not left for another"


def test_the_rest_of_a_dead_donor_is_given_by_another_and_nothing_of_it_twice() -> None:
    fetch = PlannedFetch(120, {"a": VirtualDonor(dies_after=30), "b": VirtualDonor()})
    assert fetch.run() == FetchDone(node("b"))
    assert fetch.plan.given == {node("a"): 30, node("b"): 90}
    assert set(fetch.sent.values()) == {1}
    assert fetch.dropped == {"a": "connection refused (3 times in a row)"}


def test_a_donor_in_reserve_takes_the_place_of_a_dead_one() -> None:
    fetch = PlannedFetch(60, {"a": VirtualDonor(dies_after=0), "b": VirtualDonor()}, FetchConfig(donors=1))
    assert fetch.run() == FetchDone(node("b"))
    assert fetch.now < 62


def test_a_stream_that_breaks_is_taken_up_where_it_broke() -> None:
    plan = plan_of(100, "a")
    (ask,) = asks(plan.handle(FetchStarted(), 0.0))
    for second in range(10):
        plan.handle(ChunkArrived(ask.request), float(second))
    assert asks(plan.handle(RequestBroke(ask.request, "reset"), 10.0)) == [], "not before a pause"
    due = plan.deadline()
    assert due is not None
    assert 10.0 < due < 11.0
    (again,) = asks(plan.expire(due))
    assert (again.first, again.stop) == (10, 50)


def test_a_donor_that_breaks_now_and_then_but_gives_is_kept() -> None:
    plan = plan_of(40, "a", config=FetchConfig(donors=1))
    effects, now = plan.handle(FetchStarted(), 0.0), 0.0
    for _ in range(10):
        (ask,) = asks(effects)
        plan.handle(ChunkArrived(ask.request), now)
        assert not [e for e in plan.handle(RequestBroke(ask.request, "reset"), now) if isinstance(e, FetchFailed)]
        now = plan.deadline() or now
        effects = plan.expire(now)
    assert plan.left == 30


def test_a_busy_donor_is_asked_again_at_its_own_time_and_others_go_on() -> None:
    fetch = PlannedFetch(100, {"a": VirtualDonor(busy_until=4.0, retry_after_s=5.0), "b": VirtualDonor()})
    assert isinstance(fetch.run(), FetchDone)
    times = [at for at, ask in fetch.asked if ask.donor == node("a")]
    assert times[0] == 0.0
    assert 5.0 <= times[1] <= 5.0 * (1 + JITTER)
    assert fetch.now < 60, "both gave"


def test_another_is_asked_for_the_chunks_of_a_busy_donor_at_once() -> None:
    plan = plan_of(100, "a", "b", config=FetchConfig(donors=1))
    (first,) = asks(plan.handle(FetchStarted(), 0.0))
    (instead,) = asks(plan.handle(RequestRefused(first.request, "two are being served", 5.0), 0.0))
    assert (instead.donor, instead.first) == (node("b"), first.first)


def test_pauses_are_bounded_whatever_a_donor_says() -> None:
    config = FetchConfig()
    for said, bound in ((1e9, config.pause_max_s), (0.0, config.pause_min_s), (-1.0, config.pause_min_s)):
        plan = plan_of(10, "a")
        (ask,) = asks(plan.handle(FetchStarted(), 0.0))
        plan.handle(RequestRefused(ask.request, "busy", said), 0.0)
        due = plan.deadline()
        assert due is not None
        assert bound <= due <= bound * (1 + JITTER)


def test_donors_that_are_only_ever_busy_are_given_up_after_a_while() -> None:
    fetch = PlannedFetch(10, {name: VirtualDonor(busy_until=1e9, retry_after_s=7.0) for name in "ab"})
    end = fetch.run()
    assert isinstance(end, FetchFailed)
    assert fetch.config.busy_s <= fetch.now < fetch.config.busy_s + 10
    assert dict(end.reasons)[node("a")] == "busy for 300 s: two are being served"


def test_a_donor_that_was_busy_is_used_once_it_serves() -> None:
    fetch = PlannedFetch(50, {"a": VirtualDonor(busy_until=20.0, retry_after_s=3.0)})
    assert fetch.run() == FetchDone(node("a"))
    assert 70.0 <= fetch.now < 75.0


def test_a_donor_whose_chunk_is_spoilt_gives_nothing_more() -> None:
    fetch = PlannedFetch(100, {"a": VirtualDonor(spoils=3), "b": VirtualDonor()})
    assert fetch.run() == FetchDone(node("b"))
    assert fetch.dropped == {"a": "chunk 3 fails its checksum"}
    assert fetch.donors["a"].given == 3


def test_when_nobody_is_left_each_donor_is_named_with_its_reason() -> None:
    fetch = PlannedFetch(100, {"a": VirtualDonor(spoils=0), "b": VirtualDonor(dies_after=5)})
    end = fetch.run()
    assert isinstance(end, FetchFailed)
    assert dict(end.reasons) == {
        node("a"): "chunk 0 fails its checksum",
        node("b"): "connection refused (3 times in a row)",
    }
    assert fetch.plan.left == 95


def test_a_frozen_donor_holds_nobody_up_who_has_another() -> None:
    fetch = PlannedFetch(60, {"a": VirtualDonor(freezes_after=4, chunk_s=0.1), "b": VirtualDonor(chunk_s=0.1)})
    assert fetch.run() == FetchDone(node("b"))
    assert fetch.now < fetch.config.silence_s / 2
    assert fetch.plan.refetched == 0


def test_a_frozen_donor_is_dropped_after_the_silence() -> None:
    fetch = PlannedFetch(60, {"a": VirtualDonor(freezes_after=4)})
    end = fetch.run()
    assert isinstance(end, FetchFailed)
    assert "nothing came from it for 30 s" in end.reasons[0][1]


def test_a_stalled_donor_that_wakes_up_costs_less_than_a_window_twice() -> None:
    plan = plan_of(WINDOW, "a", "b")
    (slow,) = asks(plan.handle(FetchStarted(), 0.0))
    assert (slow.first, slow.stop) == (0, WINDOW)
    stalled = plan.deadline()
    assert stalled == FetchConfig().stall_s
    (racer,) = asks(plan.expire(stalled))
    assert (racer.first, racer.stop) == (0, WINDOW)
    for _ in range(WINDOW - 1):  # both deliver in step
        assert plan.wanted(racer.request)
        assert plan.handle(ChunkArrived(racer.request), stalled) == ()
        assert not plan.wanted(slow.request)
        plan.handle(ChunkArrived(slow.request), stalled)
    assert plan.handle(ChunkArrived(racer.request), stalled) == (CancelRequest(slow.request),)
    assert plan.refetched == WINDOW - 1


def test_the_end_of_a_long_range_is_taken_over_but_not_what_is_next_in_line() -> None:
    plan = plan_of(40, "a", "b")
    slow, fast = asks(plan.handle(FetchStarted(), 0.0))
    while fast.first >= slow.stop:  # what is left in the pool, until b takes from a
        for _ in range(fast.first, fast.stop):
            plan.handle(ChunkArrived(fast.request), 0.1)
        (fast,) = asks(plan.handle(RangeEnded(fast.request), 0.1))
    assert slow.first + WINDOW <= fast.first < fast.stop == slow.stop
    for _ in range(slow.first, fast.first):
        assert plan.wanted(slow.request)
        effects = plan.handle(ChunkArrived(slow.request), 0.2)
    assert CancelRequest(slow.request) in effects, "it would go on with what is another's now"


def test_events_of_a_request_that_is_over_change_nothing() -> None:
    plan = plan_of(10, "a", "b")
    (ask, *_) = asks(plan.handle(FetchStarted(), 0.0))
    plan.handle(RequestBroke(ask.request, "reset"), 0.0)
    left = plan.left
    for event in (ChunkArrived(ask.request), RangeEnded(ask.request), RequestRefused(ask.request, "", 1.0)):
        assert plan.handle(event, 0.0) == ()
    assert plan.left == left
    assert not plan.wanted(ask.request)


donors = st.builds(
    VirtualDonor,
    chunk_s=st.sampled_from([0.01, 0.1, 1.0, 9.0]),
    dies_after=st.sampled_from([0, 1, 7, 40, float("inf"), float("inf")]),
    freezes_after=st.sampled_from([0, 3, 25, float("inf"), float("inf")]),
    spoils=st.sampled_from([-1, -1, -1, 0, 17]),
    busy_until=st.sampled_from([0.0, 0.0, 2.0, 100.0]),
    retry_after_s=st.sampled_from([0.05, 3.0, 60.0]),
)


@settings(max_examples=300, deadline=None)
@given(
    crowd=st.lists(donors, min_size=1, max_size=6),
    chunks=st.integers(1, 200),
    at_once=st.integers(1, 4),
    window=st.integers(1, 8),
    seed=st.integers(0, 5),
)
def test_every_fetch_ends_complete_or_with_every_donor_dropped(
    crowd: list[VirtualDonor], chunks: int, at_once: int, window: int, seed: int
) -> None:
    config = FetchConfig(donors=at_once, window=window)
    fetch = PlannedFetch(chunks, {f"n{i}": donor for i, donor in enumerate(crowd)}, config, seed)
    end = fetch.run()
    assert fetch.most_open <= at_once
    came_twice = sum(count - 1 for count in fetch.sent.values())
    assert came_twice == fetch.plan.refetched
    assert came_twice < window * len(crowd) + 1
    if isinstance(end, FetchDone):
        assert set(fetch.sent) == set(range(chunks))
        assert sum(fetch.plan.given.values()) == chunks
    else:
        assert set(fetch.dropped) == set(fetch.donors)
        assert {n.name for n, _ in end.reasons} == set(fetch.donors)

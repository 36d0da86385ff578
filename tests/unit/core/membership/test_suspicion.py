from __future__ import annotations

import pytest

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.membership.suspicion import Suspicions, least_suspicion_s, suspicion_timeout_s
from adpsgd_node.ids import Address, NodeId

CONFIG = MembershipConfig(minimum_suspicion_s=4.0, suspicion_max_factor=6.0, suspicion_confirmations=3)


def suspect(by: str) -> Member:
    return Member(NodeId("s", 1), Address("s:1"), 0, MemberState.SUSPECT, Phase.IDLE, suspected_by=by)


def test_least_time_grows_with_the_logarithm_of_the_members() -> None:
    config = MembershipConfig(suspicion_multiplier=4.0, minimum_suspicion_s=0.1)
    assert least_suspicion_s(config, 10) == pytest.approx(4.0)
    assert least_suspicion_s(config, 1000) == pytest.approx(12.0)


def test_time_falls_from_the_longest_to_the_least_as_members_agree() -> None:
    times = [suspicion_timeout_s(CONFIG, 10, confirmations) for confirmations in range(4)]
    assert times == pytest.approx([24.0, 14.0, 8.15, 4.0], abs=0.01)


def test_a_suspect_has_the_least_time_where_nobody_could_agree() -> None:
    assert suspicion_timeout_s(CONFIG, 2, 0) == 4.0
    assert suspicion_timeout_s(MembershipConfig(suspicion_confirmations=0), 100, 0) == 4.0


def test_one_agreeing_member_is_enough_where_there_is_only_one() -> None:
    assert suspicion_timeout_s(CONFIG, 3, 0) == 24.0
    assert suspicion_timeout_s(CONFIG, 3, 1) == pytest.approx(4.0)


def test_each_accuser_counts_once_and_whoever_passes_it_on_not_at_all() -> None:
    suspicions = Suspicions(CONFIG)
    assert suspicions.begin(suspect("a"), 10, 100.0) == 124.0
    assert suspicions.confirm(suspect("a"), 101.0) is None
    assert suspicions.confirm(suspect(""), 101.0) is None
    assert suspicions.confirm(suspect("b"), 101.0) == pytest.approx(114.0)
    assert suspicions.confirm(suspect("b"), 101.0) is None


def test_accusers_beyond_those_wanted_change_nothing() -> None:
    suspicions = Suspicions(CONFIG)
    suspicions.begin(suspect("a"), 10, 100.0)
    for accuser in "bcd":
        assert suspicions.confirm(suspect(accuser), 101.0) is not None
    assert suspicions.confirm(suspect("e"), 101.0) is None


def test_time_that_would_have_been_over_already_is_over_now() -> None:
    suspicions = Suspicions(CONFIG)
    suspicions.begin(suspect("a"), 3, 100.0)
    assert suspicions.confirm(suspect("b"), 110.0) == 110.0


def test_suspicion_that_ended_is_not_confirmed() -> None:
    suspicions = Suspicions(CONFIG)
    suspicions.begin(suspect("a"), 10, 100.0)
    suspicions.end("s")
    assert suspicions.confirm(suspect("b"), 101.0) is None


def test_time_in_which_this_node_stood_still_is_given_to_the_suspect() -> None:
    suspicions = Suspicions(CONFIG)
    suspicions.begin(suspect("a"), 10, 100.0)
    suspicions.postpone(50.0)
    assert suspicions.confirm(suspect("b"), 151.0) == pytest.approx(164.0)


def test_a_suspicion_that_a_remembered_death_hastens_has_the_least_time_from_its_beginning() -> None:
    suspicions = Suspicions(CONFIG)
    suspicions.begin(suspect("a"), 10, 100.0)
    assert suspicions.hasten("s", 101.0) == 104.0
    assert suspicions.hasten("s", 102.0) is None
    assert suspicions.hasten("stranger", 102.0) is None

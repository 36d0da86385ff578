"""Seeds as names: looked up again and again, never a reason to give up."""

from __future__ import annotations

import random

import pytest

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import AskToJoin, Joined, ResolveSeeds, Waiting
from adpsgd_node.core.membership.join import Joining
from adpsgd_node.core.membership.schedule import JoinDue, Schedule
from adpsgd_node.errors import ConfigError
from adpsgd_node.ids import Address
from adpsgd_node.seed import MAX_SEEDS

OWN = Address("own:1")
A, B, C = Address("a:1"), Address("b:1"), Address("c:1")
NOWHERE = "dns+srv://_gossip._tcp.x: no such name"


class Bench:
    """A `Joining` with its schedule."""

    def __init__(self, *seeds: Address, resolving: bool = False, own: Address | None = OWN) -> None:
        self.schedule = Schedule()
        self.joining = Joining(own, seeds, self.schedule, MembershipConfig(), random.Random(1), resolving=resolving)
        self.now = 0.0

    def wait(self) -> list[object]:
        """Let time pass until something happens; timers of earlier attempts come due for nothing."""
        while True:
            due = self.schedule.earliest()
            assert due is not None, "nothing would ever happen again"
            self.now, timer = due, self.schedule.pop(due)
            assert isinstance(timer, JoinDue)
            if effects := list[object](self.joining.due(timer, due)):
                return effects

    def resolved(self, *addresses: Address, nowhere: tuple[str, ...] = ()) -> list[object]:
        return list(self.joining.resolved(addresses, nowhere, self.now))


def asked(effects: list[object]) -> list[Address]:
    return [effect.seed for effect in effects if isinstance(effect, AskToJoin)]


def nobody(_: Address, __: str | None) -> bool:
    return False


def test_names_are_looked_up_before_anyone_is_asked() -> None:
    bench = Bench(resolving=True)
    assert bench.joining.start(0.0) == [ResolveSeeds()]
    assert bench.resolved(A, OWN, B) == [AskToJoin(A)]
    assert bench.joining.failed(A, "refused", 0.0) == [AskToJoin(B)]


def test_empty_answer_is_waited_out_and_never_begins_a_run_alone() -> None:
    bench = Bench(resolving=True)
    bench.joining.start(0.0)
    waits = []
    for _ in range(50):
        began = bench.now
        [waiting] = bench.resolved(nowhere=(NOWHERE,))
        assert isinstance(waiting, Waiting)
        assert NOWHERE in waiting.text
        assert bench.wait() == [ResolveSeeds()]
        waits.append(bench.now - began)
    assert not bench.joining.joined
    config = MembershipConfig()
    assert waits[0] <= config.join_backoff_min_s
    assert all(config.join_backoff_max_s / 2 <= wait <= config.join_backoff_max_s for wait in waits[10:])
    assert len(set(waits[10:])) > 10, "without jitter all nodes would ask at once"
    assert bench.resolved(A) == [AskToJoin(A)]


def test_look_up_that_never_ends_does_not_stop_the_asking() -> None:
    bench = Bench(resolving=True)
    bench.joining.start(0.0)
    [waiting] = bench.wait()
    assert isinstance(waiting, Waiting)
    assert bench.wait() == [ResolveSeeds()]


def test_address_that_turns_up_while_waiting_is_asked_at_once() -> None:
    bench = Bench(resolving=True)
    bench.joining.start(0.0)
    bench.resolved(A)
    [waiting] = bench.joining.failed(A, "refused", 0.0)
    assert isinstance(waiting, Waiting)
    assert bench.resolved(A) == [], "nothing new"
    assert bench.resolved(A, B) == [AskToJoin(B)]


def test_address_that_turns_up_in_mid_round_is_asked_in_that_round() -> None:
    bench = Bench(resolving=True)
    bench.joining.start(0.0)
    bench.resolved(A)
    assert bench.resolved(A, B) == []
    assert bench.joining.failed(A, "refused", 0.0) == [AskToJoin(B)]


def test_node_that_all_names_lead_to_begins_the_run_and_goes_on_looking() -> None:
    bench = Bench(resolving=True)
    bench.joining.start(0.0)
    assert bench.resolved(OWN)[0] == Joined(None)
    assert bench.wait() == [ResolveSeeds()]
    assert bench.resolved(OWN, A) == [AskToJoin(A)]


def test_node_behind_another_address_of_its_own_begins_the_run_once_that_has_answered() -> None:
    bench = Bench(resolving=True)
    bench.joining.start(0.0)
    assert bench.resolved(OWN, A) == [AskToJoin(A)]
    assert bench.joining.answered_by_self(A, 0.0)[0] == Joined(None)


def test_node_does_not_begin_alone_while_one_of_its_seeds_leads_nowhere_yet() -> None:
    bench = Bench(resolving=True)
    bench.joining.start(0.0)
    assert Joined(None) not in bench.resolved(OWN, nowhere=(NOWHERE,))
    assert not bench.joining.joined


def test_seed_among_the_seeds_asks_the_others_first() -> None:
    bench = Bench(OWN, A)
    assert bench.joining.start(0.0) == [AskToJoin(A)]
    bench.joining.failed(A, "refused", 0.0)
    assert not bench.joining.joined


def test_node_that_nobody_can_dial_asks_a_seed_at_its_own_address_too() -> None:
    assert Bench(OWN, own=None).joining.start(0.0) == [AskToJoin(OWN)]


def test_seed_without_a_live_member_is_visited_again_and_its_name_looked_up() -> None:
    bench = Bench(resolving=True)
    bench.joining.start(0.0)
    bench.resolved(A, B)
    assert bench.joining.accepted(A, "node-a") == [Joined(A)]
    live = {"node-a"}
    effects = bench.joining.revisit(lambda seed, name: seed == B or name in live)
    assert effects == [], "both lead to live members"
    live.clear()
    assert bench.joining.revisit(lambda seed, name: seed == B or name in live) == [ResolveSeeds(), AskToJoin(A)]


def test_visits_go_round_all_missing_seeds_a_few_at_a_time() -> None:
    seeds = [Address(f"s{number}:1") for number in range(8)]
    bench = Bench(*seeds)
    bench.joining.start(0.0)
    bench.joining.accepted(seeds[0], "s")
    rounds = [asked(list(bench.joining.revisit(nobody))) for _ in range(8)]
    assert max(map(len, rounds)) <= 3
    assert {seed for visited in rounds for seed in visited} == set(seeds)


def test_more_addresses_than_the_limit_are_cut_and_more_seeds_refused() -> None:
    many = [Address(f"s{number}:1") for number in range(2 * MAX_SEEDS)]
    bench = Bench(resolving=True)
    bench.joining.start(0.0)
    count = len(asked(bench.resolved(*many)))
    while more := asked(list(bench.joining.failed(many[count - 1], "refused", 0.0))):
        count += len(more)
    assert count == MAX_SEEDS
    with pytest.raises(ConfigError, match=f"more than {MAX_SEEDS}"):
        Bench(*many)

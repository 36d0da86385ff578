"""The clock and the network of the simulator."""

from __future__ import annotations

import random

import pytest

from adpsgd_node.errors import ConfigError
from adpsgd_node.ids import Address
from adpsgd_node.sim import Clock, Link, Network

A, B, C = Address("a:1"), Address("b:1"), Address("c:1")


def test_events_happen_in_order_of_time_and_then_of_setting() -> None:
    clock = Clock()
    seen: list[tuple[float, str]] = []

    def note(text: str) -> None:
        seen.append((clock.now, text))
        if text == "first":
            clock.at(0.0, note, "late")  # a time gone by: at once, after what is due already

    for time, text in ((2.0, "last"), (1.0, "first"), (1.0, "second"), (9.0, "never")):
        clock.at(time, note, text)
    clock.run_until(3.0)

    assert seen == [(1.0, "first"), (1.0, "second"), (1.0, "late"), (2.0, "last")]
    assert clock.now == 3.0


def test_loss_takes_its_share_and_delay_stays_in_its_range() -> None:
    network = Network(random.Random(1), Link(loss=0.25, delay_min_s=0.1, delay_max_s=0.2))

    transits = [network.transit_s(A, B) for _ in range(4000)]

    arrived = [seconds for seconds in transits if seconds is not None]
    assert 0.2 < network.lost / network.sent < 0.3
    assert len(arrived) == network.sent - network.lost
    assert 0.1 <= min(arrived) < 0.11 < 0.19 < max(arrived) <= 0.2


def test_one_way_of_a_link_can_be_dead_while_the_other_lives() -> None:
    network = Network(random.Random(1))

    network.set_way(A, B, Link(loss=1.0))

    assert network.transit_s(A, B) is None
    assert network.transit_s(B, A) is not None
    assert network.transit_s(A, C) is not None
    network.heal()
    assert network.transit_s(A, B) is not None


def test_a_partition_lets_messages_pass_only_within_a_side() -> None:
    network = Network(random.Random(1))

    network.partition([A, B])

    assert network.connected(A, B)
    assert not network.connected(A, C)
    assert network.transit_s(C, A) is None
    network.heal()
    assert network.transit_s(C, A) is not None


@pytest.mark.parametrize(
    "wrong", [{"loss": -0.1}, {"loss": 1.1}, {"delay_min_s": 0.3, "delay_max_s": 0.2}, {"delay_min_s": -1.0}]
)
def test_a_link_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Link(**wrong)

from __future__ import annotations

import math

import pytest

from adpsgd_node.core.topology import topology_named
from adpsgd_node.core.topology.acceleration import LAG
from adpsgd_node.daemon.acceleration import MAX_ACCELERATED, PLAIN, momentum_at


def names(count: int) -> list[str]:
    return [f"n{place:03d}" for place in range(count)]


@pytest.mark.parametrize("count", [3, 8, 33])
def test_on_a_ring_the_constants_have_a_closed_form(count: int) -> None:
    """Each edge is used once in a unit of time, so lambda_2 = 2 - 2 cos(2 pi / n); n - 1 edges lie beside each one."""
    chi1 = 1 / (2 - 2 * math.cos(2 * math.pi / count))
    chi2 = (count - 1) / count / 2
    found = momentum_at(topology_named("ring"), names(count), "n001", ())
    assert found.momentum_share == pytest.approx(math.sqrt(chi1 / chi2))
    assert found.mixing_rate == pytest.approx(LAG / (2 * math.sqrt(chi1 * chi2)))
    assert found.exchanges_per_unit == pytest.approx(2.0)


def test_on_a_complete_graph_there_is_nothing_to_gain() -> None:
    assert momentum_at(topology_named("complete"), names(8), "n001", ()).momentum_share == pytest.approx(1.0)


def test_all_nodes_get_the_same_constants_and_count_time_by_their_own_exchanges() -> None:
    star = topology_named("custom", "a:b,a:c,a:d")
    hub, leaf = (momentum_at(star, ["a", "b", "c", "d"], own, ()) for own in "ab")
    assert (hub.mixing_rate, hub.momentum_share) == (leaf.mixing_rate, leaf.momentum_share)
    assert (hub.exchanges_per_unit, leaf.exchanges_per_unit) == (pytest.approx(4.0), pytest.approx(4 / 3))


@pytest.mark.parametrize(
    ("count", "own", "outbound_only"),
    [(1, "n000", ()), (3, "x", ()), (2, "n000", ("n000", "n001")), (MAX_ACCELERATED + 1, "n000", ())],
    ids=["alone", "holds no model", "nobody can be called", "too many"],
)
def test_without_a_graph_to_measure_there_is_no_momentum(count: int, own: str, outbound_only: tuple[str, ...]) -> None:
    assert momentum_at(topology_named("ring"), names(count), own, outbound_only) == PLAIN

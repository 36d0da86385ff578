from __future__ import annotations

import math

import pytest

from adpsgd_node.core.topology import TOPOLOGIES, Topology, diameter, metropolis_weights, topology_named
from adpsgd_node.core.topology.exponential import exponential_hops
from adpsgd_node.errors import ConfigError

PLACED = [name for name in TOPOLOGIES if name != "custom"]
COUNTS = [2, 3, 4, 5, 7, 8, 9, 16, 17, 33]


def names(count: int) -> list[str]:
    return [f"n{index:02d}" for index in range(count)]


def edges(topology: Topology, count: int) -> set[tuple[str, str]]:
    return {(own, other) for own in names(count) for other in topology.neighbors(names(count), own)}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", PLACED)
def test_graph_is_undirected_connected_and_without_loops(name: str, count: int) -> None:
    topology = topology_named(name)
    found = edges(topology, count)
    assert all((other, own) in found and own != other for own, other in found)
    assert 1 <= diameter(topology, count) < count  # refuses a graph that is not connected
    for own in names(count):
        neighbors = topology.neighbors(names(count), own)
        assert list(neighbors) == sorted(set(neighbors))


@pytest.mark.parametrize("name", PLACED)
def test_node_alone_has_no_neighbors(name: str) -> None:
    assert topology_named(name).neighbors(["only"], "only") == ()
    assert diameter(topology_named(name), 1) == 0


def test_ring_joins_each_with_the_one_before_and_after() -> None:
    assert topology_named("ring").neighbors(names(5), "n00") == ("n01", "n04")
    assert topology_named("ring").neighbors(names(2), "n00") == ("n01",)


def test_exponential_hops_are_one_and_powers_of_two_plus_one() -> None:
    assert list(exponential_hops(18)) == [1, 3, 5, 9, 17]
    assert list(exponential_hops(17)) == [1, 3, 5, 9]
    assert list(exponential_hops(2)) == [1]
    assert list(exponential_hops(1)) == []


def test_exponential_joins_in_both_directions() -> None:
    assert topology_named("exponential").neighbors(names(8), "n00") == ("n01", "n03", "n05", "n07")


def test_hypercube_of_a_power_of_two_is_the_cube() -> None:
    assert topology_named("hypercube").neighbors(names(8), "n05") == ("n01", "n04", "n07")
    assert diameter(topology_named("hypercube"), 8) == 3


@pytest.mark.parametrize("count", COUNTS)
def test_hypercube_of_any_count_has_a_logarithmic_diameter(count: int) -> None:
    assert diameter(topology_named("hypercube"), count) <= math.ceil(math.log2(count))


def test_diameters_of_known_graphs() -> None:
    assert diameter(topology_named("complete"), 9) == 1
    assert diameter(topology_named("ring"), 9) == 4
    assert diameter(topology_named("custom", "a:b,b:c,c:d"), ["a", "b", "c", "d"]) == 3


@pytest.mark.parametrize("name", PLACED)
def test_metropolis_weights_are_symmetric_positive_and_sum_to_one(name: str) -> None:
    topology = topology_named(name)
    rows = {own: metropolis_weights(topology, names(7), own) for own in names(7)}
    for own, row in rows.items():
        assert sum(row.values()) == pytest.approx(1.0)
        assert all(weight > 0 for weight in row.values())
        assert all(rows[other][own] == pytest.approx(weight) for other, weight in row.items())


def test_unknown_topology_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'torus'.*complete.*exponential.*hypercube.*ring.*custom"):
        topology_named("torus")


def test_edges_for_a_named_topology_are_refused() -> None:
    with pytest.raises(ConfigError, match="ring topology takes no edge list"):
        topology_named("ring", "a:b")

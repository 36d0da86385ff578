"""Which graphs have two sides, who is on which, and what shows that one has none."""

from __future__ import annotations

import itertools

import pytest

from adpsgd_node.core.topology import Topology, split, topology_named


def names(count: int) -> list[str]:
    return [f"n{index:02d}" for index in range(count)]


def all_edges_cross(topology: Topology, members: list[str], active: frozenset[str]) -> bool:
    return all((own in active) != (other in active) for own in members for other in topology.neighbors(members, own))


def is_odd_cycle(topology: Topology, members: list[str], cycle: tuple[str, ...]) -> bool:
    joined = all(
        other in topology.neighbors(members, one) for one, other in zip(cycle, (*cycle[1:], cycle[0]), strict=True)
    )
    return joined and len(cycle) % 2 == 1 and len(set(cycle)) == len(cycle) >= 3


@pytest.mark.parametrize("count", [2, 4, 6, 16])
@pytest.mark.parametrize("name", ["ring", "exponential"])
def test_an_even_ring_alternates_and_so_do_the_odd_hops_of_the_exponential_graph(name: str, count: int) -> None:
    found = split(topology_named(name), names(count))
    assert found.odd_cycle == ()
    assert found.active == frozenset(names(count)[::2])


@pytest.mark.parametrize("count", range(1, 20))
def test_a_hypercube_of_any_count_has_two_sides(count: int) -> None:
    topology = topology_named("hypercube")
    found = split(topology, names(count))
    assert found.odd_cycle == ()
    assert all_edges_cross(topology, names(count), found.active)


@pytest.mark.parametrize("count", [3, 5, 9])
@pytest.mark.parametrize("name", ["ring", "exponential", "complete"])
def test_an_odd_ring_has_no_sides_and_an_odd_cycle_shows_it(name: str, count: int) -> None:
    topology = topology_named(name)
    found = split(topology, names(count))
    assert found.active == frozenset()
    assert is_odd_cycle(topology, names(count), found.odd_cycle)


def test_the_odd_cycle_of_an_edge_list_is_named() -> None:
    topology = topology_named("custom", "a:b,b:c,c:d,d:e,e:c,b:f")
    found = split(topology, list("abcdef"))
    assert sorted(found.odd_cycle) == ["c", "d", "e"]
    assert found.active == frozenset()


def test_the_larger_side_is_active_and_of_equal_ones_that_of_the_first_name() -> None:
    star = topology_named("custom", "a:b,a:c,a:d")
    assert split(star, list("abcd")).active == {"b", "c", "d"}
    assert split(star, ["a", "b"]).active == {"a"}
    assert split(star, ["a"]).active == {"a"}


def test_an_absent_member_may_take_the_sides_away_and_bring_them_back() -> None:
    square = topology_named("custom", "a:b,b:c,c:d,d:a")
    assert split(square, list("abcd")).active == {"a", "c"}
    assert split(square, list("abc")).odd_cycle, "who steps over d is joined with the other that does"


def test_of_all_graphs_of_four_members_exactly_those_without_an_odd_cycle_have_sides() -> None:
    members = list("abcd")
    pairs = list(itertools.combinations(members, 2))
    tree = {("a", "b"), ("a", "c"), ("a", "d")}
    for extra in itertools.chain.from_iterable(itertools.combinations(pairs, k) for k in range(4)):
        edges = tree | set(extra)
        topology = topology_named("custom", ",".join(f"{one}:{other}" for one, other in sorted(edges)))
        found = split(topology, members)
        colorable = any(
            all((one in side) != (other in side) for one, other in edges)
            for size in range(5)
            for side in map(set, itertools.combinations(members, size))
        )
        assert bool(found.active) is colorable
        if colorable:
            assert all_edges_cross(topology, members, found.active)
        else:
            assert is_odd_cycle(topology, members, found.odd_cycle)

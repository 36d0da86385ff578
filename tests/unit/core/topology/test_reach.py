from __future__ import annotations

import itertools

import pytest

from adpsgd_node.core.topology import diameter_bound, reach, topology_named

NAMES = ("a", "b", "c", "d", "e", "f")


@pytest.mark.parametrize("name", ["complete", "ring", "exponential", "hypercube"])
@pytest.mark.parametrize("inward", [(), ("c",)])
def test_one_outbound_only_member_takes_nothing_away(name: str, inward: tuple[str, ...]) -> None:
    topology = topology_named(name)
    for own in NAMES:
        found = reach(topology, NAMES, own, inward)
        assert found.neighbors == topology.neighbors(NAMES, own)
        assert found.diameter_bound == diameter_bound(topology, NAMES, own)
        assert found.cut_off == ()


def test_two_of_them_are_no_neighbors_but_meet_the_others() -> None:
    topology = topology_named("complete")
    assert reach(topology, NAMES, "a", {"a", "b"}).neighbors == ("c", "d", "e", "f")
    assert reach(topology, NAMES, "c", {"a", "b"}).neighbors == ("a", "b", "d", "e", "f")
    assert reach(topology, NAMES, "a", {"a", "b"}).cut_off == ()
    assert reach(topology, NAMES, "a", {"a", "b"}).diameter_bound >= 2


def test_both_ends_see_the_same_edges() -> None:
    for name, inward in itertools.product(["complete", "ring", "exponential"], [{"a", "b"}, {"a", "d", "e"}]):
        topology = topology_named(name)
        near = {own: set(reach(topology, NAMES, own, inward).neighbors) for own in NAMES}
        assert all((one in near[other]) == (other in near[one]) for one, other in itertools.product(NAMES, NAMES))


def test_ring_cut_between_two_of_them_is_a_longer_way_round() -> None:
    found = reach(topology_named("ring"), NAMES, "a", {"a", "b"})
    assert found.neighbors == ("f",)
    assert found.cut_off == ()
    assert found.diameter_bound == 5


def test_members_without_a_way_are_named() -> None:
    topology = topology_named("ring")
    assert reach(topology, NAMES, "b", {"a", "b", "c"}).cut_off == ("a", "c", "d", "e", "f")
    assert reach(topology, NAMES, "e", {"a", "b", "c"}).cut_off == ("b",)
    assert reach(topology_named("complete"), ("a", "b"), "a", {"a", "b"}).cut_off == ("b",)


def test_one_that_has_left_the_run_counts_no_more() -> None:
    assert reach(topology_named("ring"), NAMES, "a", {"a", "z"}).cut_off == ()

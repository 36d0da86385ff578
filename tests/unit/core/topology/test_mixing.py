from __future__ import annotations

import pytest

from adpsgd_node.core.topology import metropolis_weight, metropolis_weights, topology_named


@pytest.mark.parametrize(("own", "other", "weight"), [(1, 1, 1 / 2), (2, 2, 1 / 3), (1, 4, 1 / 5), (4, 1, 1 / 5)])
def test_the_end_with_more_neighbors_says_what_an_edge_weighs(own: int, other: int, weight: float) -> None:
    assert metropolis_weight(own, other) == weight


def test_hub_of_a_star_keeps_as_much_as_it_gives_each_leaf() -> None:
    star = topology_named("custom", "hub:a,hub:b,hub:c")
    names = ["a", "b", "c", "hub"]
    assert metropolis_weights(star, names, "hub") == pytest.approx({"hub": 1 / 4, "a": 1 / 4, "b": 1 / 4, "c": 1 / 4})
    assert metropolis_weights(star, names, "a") == pytest.approx({"a": 3 / 4, "hub": 1 / 4})


def test_node_alone_keeps_all() -> None:
    assert metropolis_weights(topology_named("ring"), ["only"], "only") == {"only": 1.0}


def test_weights_follow_the_members_that_are_left() -> None:
    path = topology_named("custom", "a:b,b:c,c:d")
    assert metropolis_weights(path, ["a", "b", "c", "d"], "b") == pytest.approx({"b": 1 / 3, "a": 1 / 3, "c": 1 / 3})
    assert metropolis_weights(path, ["a", "b"], "b") == pytest.approx({"b": 1 / 2, "a": 1 / 2})

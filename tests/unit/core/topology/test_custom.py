from __future__ import annotations

import pytest

from adpsgd_node.core.topology import diameter, topology_named
from adpsgd_node.errors import ConfigError


def test_edges_join_names_with_hyphens_in_both_directions() -> None:
    topology = topology_named("custom", "node-0:node-1, node-1:node-2\n")
    live = ["node-0", "node-1", "node-2"]
    assert topology.neighbors(live, "node-1") == ("node-0", "node-2")
    assert topology.neighbors(live, "node-2") == ("node-1",)


def test_repeated_edge_counts_once() -> None:
    assert topology_named("custom", "a:b,b:a,a:b").neighbors(["a", "b"], "a") == ("b",)


def test_dead_member_is_stepped_over_so_that_the_rest_stays_connected() -> None:
    topology = topology_named("custom", "a:b,b:c,c:d,d:e")
    live = ["a", "d", "e"]
    assert topology.neighbors(live, "a") == ("d",)
    assert topology.neighbors(live, "d") == ("a", "e")
    assert diameter(topology, live) == 2


def test_star_without_its_hub_is_complete() -> None:
    topology = topology_named("custom", "hub:a,hub:b,hub:c")
    assert topology.neighbors(["a", "b", "c"], "a") == ("b", "c")


def test_live_member_outside_the_list_is_nobodys_neighbor() -> None:
    topology = topology_named("custom", "a:b,b:c")
    assert topology.neighbors(["a", "b", "c", "x"], "b") == ("a", "c")


def test_node_that_is_not_in_the_list_is_told_so_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'x' is not in the edge list.*a, b"):
        topology_named("custom", "a:b").neighbors(["a", "b", "x"], "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "needs an edge list"),
        (" , ", "is empty"),
        ("a-b", "'a-b' in the edge list is no edge"),
        ("a:b:c", "'a:b:c' in the edge list is no edge"),
        ("a:,b:c", "'a:' in the edge list is no edge"),
        ("a:b,c:c", "joins 'c' with itself"),
        ("a:b,c:d", "no path leads from 'a' to 'c', 'd'"),
    ],
)
def test_bad_edges_are_refused_by_name(text: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        topology_named("custom", text)

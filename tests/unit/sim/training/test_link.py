"""Links between simulated nodes, and how transfers share them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from adpsgd_node.errors import ConfigError
from adpsgd_node.sim.clock import Clock
from adpsgd_node.sim.training.link import LinkTable, link_table
from adpsgd_node.sim.training.scenario import NetworkConfig, NetworkName, TrainingScenario
from adpsgd_node.sim.training.transfer import Transfer, Transfers

SECOND = 1e6
"""Bytes that a link of this test carries in a second."""


def table_of(nodes: int = 4, **network: object) -> LinkTable:
    given = {"latency_ms": 10.0, "bandwidth_mbps": 8.0, **network}
    return link_table(TrainingScenario(nodes=nodes, network=NetworkConfig(**given)))  # type: ignore[arg-type]


def arrivals(table: LinkTable, *transfers: tuple[int, int, float, float]) -> list[float]:
    """Send transfers (source, target, seconds of a whole link, earliest) at time 0; return when each arrived."""
    clock = Clock()
    lines = Transfers(clock, table)
    found = [math.nan] * len(transfers)

    def on_its_way(number: int, arrival_s: float) -> None:
        found[number] = arrival_s

    for number, (source, target, seconds, earliest_s) in enumerate(transfers):
        lines.send(
            Transfer(source, target, seconds * SECOND, earliest_s, lambda at, number=number: on_its_way(number, at))  # type: ignore[misc]
        )
    clock.run_until(math.inf)
    return found


def test_a_transfer_takes_its_bytes_and_one_latency() -> None:
    assert arrivals(table_of(), (0, 1, 2.0, 0.0)) == [pytest.approx(2.01)]
    assert arrivals(table_of(), (0, 1, 2.0, 5.0)) == [pytest.approx(7.01)]


def test_what_a_node_sends_itself_takes_no_time() -> None:
    assert arrivals(table_of(), (2, 2, 100.0, 3.0)) == [3.0]


def test_transfers_share_the_link_up_of_their_source_and_the_link_down_of_their_target() -> None:
    assert arrivals(table_of(), (0, 1, 1.0, 0.0), (0, 2, 1.0, 0.0), (0, 3, 1.0, 0.0)) == [
        pytest.approx(1.01),
        pytest.approx(2.01),
        pytest.approx(3.01),
    ]
    assert arrivals(table_of(), (1, 0, 1.0, 0.0), (2, 0, 1.0, 0.0)) == [pytest.approx(1.01), pytest.approx(2.01)]


def test_both_directions_and_other_pairs_do_not_hinder_each_other() -> None:
    found = arrivals(table_of(), (0, 1, 1.0, 0.0), (1, 0, 1.0, 0.0), (2, 3, 1.0, 0.0))

    assert found == [pytest.approx(1.01)] * 3


def test_a_slow_link_slows_both_directions_of_one_node() -> None:
    table = table_of(slow_link=("n1=10",))

    assert arrivals(table, (0, 1, 1.0, 0.0)) == [pytest.approx(10.01)]
    assert arrivals(table, (1, 0, 1.0, 0.0)) == [pytest.approx(10.01)]
    assert arrivals(table, (0, 2, 1.0, 0.0)) == [pytest.approx(1.01)]


def test_a_matrix_outweighs_the_network_where_it_says_something(tmp_path: Path) -> None:
    path = tmp_path / "links.json"
    latency = [[0, 500, None], [0, 0, 0], [None, 0, 0]]
    path.write_text(json.dumps({"latency_ms": latency, "bandwidth_mbps": [[None, 4, None]] + [[None] * 3] * 2}))

    table = table_of(3, links=path)

    assert arrivals(table, (0, 1, 1.0, 0.0)) == [pytest.approx(2.5)]
    assert arrivals(table, (0, 2, 1.0, 0.0)) == [pytest.approx(1.01)]
    assert arrivals(table, (1, 2, 1.0, 0.0)) == [pytest.approx(1.0)]


def test_networks_differ_in_latency_and_bandwidth() -> None:
    tables = [link_table(TrainingScenario(nodes=2, network=NetworkConfig(network=name))) for name in NetworkName]

    latencies, rates = [table.latency_of(0, 1) for table in tables], [table.rate_up(0, 1) for table in tables]
    assert latencies == sorted(latencies)
    assert rates == sorted(rates, reverse=True)
    assert (latencies[-1], rates[-1]) == (0.04, 12.5e6)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "no JSON"),
        ("[]", "other keys"),
        ("{}", "other keys"),
        ('{"latency": [[0]]}', "other keys"),
        ('{"latency_ms": [[0, 1]]}', "latency_ms"),
        ('{"latency_ms": [[0, 1], [0]]}', "row 1 of latency_ms"),
        ('{"latency_ms": [[0, -1], [0, 0]]}', r"latency_ms\[0\]\[1\]"),
        ('{"bandwidth_mbps": [[1, 1], [0, 1]]}', r"bandwidth_mbps\[1\]\[0\]"),
        ('{"bandwidth_mbps": [[1, "fast"], [1, 1]]}', r"bandwidth_mbps\[0\]\[1\]"),
        ('{"bandwidth_mbps": [[1, true], [1, 1]]}', r"bandwidth_mbps\[0\]\[1\]"),
    ],
)
def test_a_file_of_links_that_does_not_fit_is_refused_with_the_place(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "links.json"
    path.write_text(content)

    with pytest.raises(ConfigError, match=said) as caught:
        table_of(2, links=path)

    assert str(path) in str(caught.value)


def test_a_file_of_links_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json"):
        table_of(2, links=tmp_path / "none.json")

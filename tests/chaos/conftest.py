"""Clusters of real nodes for the tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.cluster import Cluster
from chaos.hosts import make_hosts, namespaces_missing
from chaos.mark import Mark
from chaos.plan import ChaosPlan


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip, and say why, where hosts cannot have a network of their own."""
    if why := namespaces_missing():
        pytest.skip(why)


@pytest.fixture
def cluster_of(tmp_path: Path) -> Iterator[Callable[[int], Cluster]]:
    """Make a cluster of so many nodes, none of them started; nothing of it is left afterwards."""
    closing: list[Callable[[], None]] = []

    def make(nodes: int) -> Cluster:
        mark = Mark()
        hosts = make_hosts(nodes, mark)
        closing.append(hosts.close)
        plan = ChaosPlan(nodes=nodes, minutes=60.0, steady=True, output=tmp_path / "run")
        cluster = Cluster(plan, hosts, mark, lambda text: print(text, file=sys.stderr))
        closing.append(cluster.close)
        return cluster

    yield make
    for close in reversed(closing):
        close()

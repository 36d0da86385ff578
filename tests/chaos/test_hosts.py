"""The hosts of the suite can do to the network what its faults ask for, and leave nothing behind."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos.hosts import LoopbackHosts, NamespaceHosts, remove_stale
from chaos.mark import Mark

needs_namespaces = pytest.mark.usefixtures("namespaces")

NEW_NETWORK = 0x40000000
ARRIVES_S = 5.0
LOST_S = 0.3


@contextmanager
def inside(hosts: NamespaceHosts, host: int) -> Iterator[None]:
    """Make sockets on a host: a socket stays where it was made."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{hosts.names[host]}", os.O_RDONLY)
    try:
        assert libc.setns(there, NEW_NETWORK) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(home, NEW_NETWORK) == 0
        os.close(home)
        os.close(there)


class Wire:
    """A UDP socket on every host."""

    def __init__(self, hosts: NamespaceHosts, count: int) -> None:
        self._hosts = hosts
        self._sockets = []
        for host in range(count):
            with inside(hosts, host):
                self._sockets.append(socket.socket(type=socket.SOCK_DGRAM))
            self._sockets[host].bind(("", 7400))

    def passes(self, source: int, target: int, limit_s: float = ARRIVES_S) -> bool:
        """Tell whether a packet arrives; one that was lost is not sent again."""
        ip, _, port = self._hosts.address(target).rpartition(":")
        self._sockets[source].sendto(b"packet", (ip, int(port)))
        self._sockets[target].settimeout(limit_s)
        try:
            return self._sockets[target].recv(100) == b"packet"
        except TimeoutError:
            return False

    def close(self) -> None:
        for each in self._sockets:
            each.close()


@pytest.fixture
def hosts(namespaces: None) -> Iterator[NamespaceHosts]:
    made = NamespaceHosts(3, Mark())
    yield made
    made.close()


@pytest.fixture
def wire(hosts: NamespaceHosts) -> Iterator[Wire]:
    made = Wire(hosts, 3)
    yield made
    made.close()


@needs_namespaces
def test_a_link_is_cut_in_one_direction_only_until_it_heals(hosts: NamespaceHosts, wire: Wire) -> None:
    assert wire.passes(0, 1)
    hosts.cut([(0, 1)])
    assert not wire.passes(0, 1, LOST_S)
    assert wire.passes(1, 0)
    assert wire.passes(0, 2)
    hosts.heal([(0, 1)])
    assert wire.passes(0, 1)


@needs_namespaces
def test_a_cut_follows_a_host_to_its_new_address(hosts: NamespaceHosts, wire: Wire) -> None:
    hosts.cut([(0, 1), (1, 2)])
    before = hosts.address(1)
    assert hosts.move(1) != before
    assert not wire.passes(0, 1, LOST_S)
    assert not wire.passes(1, 2, LOST_S)
    assert wire.passes(2, 1)
    hosts.heal([(0, 1), (1, 2)])
    assert wire.passes(0, 1)
    assert wire.passes(1, 2)


@needs_namespaces
def test_a_lossy_link_loses_some_packets_and_not_all(hosts: NamespaceHosts, wire: Wire) -> None:
    if not hosts.can_lose:
        pytest.skip("iptables has no match `statistic` here")
    assert wire.passes(0, 1)
    hosts.lose((0, 1), 0.5)
    arrived = sum(wire.passes(0, 1, 0.02) for _ in range(60))
    assert 5 < arrived < 55
    hosts.lose((0, 1), 0.0)
    assert all(wire.passes(0, 1) for _ in range(10))


@needs_namespaces
def test_what_a_killed_run_left_is_removed_and_what_a_living_one_has_is_not(hosts: NamespaceHosts) -> None:
    abandoned = "adpsgd-chaos-1-1-host0"  # process 1 did not start at tick 1
    os.system(f"ip netns add {abandoned}")
    assert remove_stale() == [abandoned]
    present = {entry.name for entry in Path("/run/netns").iterdir()}
    assert abandoned not in present
    assert set(hosts.names) <= present


@needs_namespaces
def test_closing_leaves_no_namespace() -> None:
    hosts = NamespaceHosts(2, Mark())
    hosts.close()
    assert not [entry for entry in Path("/run/netns").iterdir() if str(Mark()) in entry.name]


def test_loopback_hosts_have_different_addresses_and_links_that_cannot_be_cut() -> None:
    hosts = LoopbackHosts(8)
    assert len({hosts.address(host) for host in range(8)}) == 8
    moved = hosts.move(0)
    assert len({hosts.address(host) for host in range(8)}) == 8
    with socket.create_server((moved.rpartition(":")[0], 0)):
        pass
    with pytest.raises(NotImplementedError, match="loopback"):
        hosts.cut([(0, 1)])

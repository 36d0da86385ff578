"""Give every node a host of its own: a network namespace where root may make one, else an address of the loopback.

Namespaces hang on one bridge, which lives in a namespace too: nothing of the machine's own network is touched. A link
is cut in one direction by pointing the sender's neighbor entry of the receiver at a hardware address that nobody has:
packets then vanish without a word, as they do in a real network, and what comes the other way still arrives. That needs
no kernel module. Random loss needs the `statistic` match of iptables and is left out where that is missing.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from chaos.mark import Mark

__all__ = ["Hosts", "LoopbackHosts", "NamespaceHosts", "make_hosts", "namespaces_missing"]

PORT = 7400
HTTP_PORT = 8400
MAX_HOSTS = 64
MAX_MOVES = 100
SUBNET = "10.213"
NOWHERE = "02:00:00:00:00:01"
"""A hardware address that no host has."""
COMMAND_LIMIT_S = 20.0

Link = tuple[int, int]
"""The sending and the receiving host."""


class Hosts(ABC):
    """The machines of one run, numbered from 0."""

    kind = ""
    """How the output calls them."""
    can_cut = False
    """Links can be cut, one direction at a time."""
    can_lose = False
    """Links can lose some packets, one direction at a time."""
    remote = False
    """Nodes listen on addresses that are not loopback."""

    @abstractmethod
    def address(self, host: int) -> str:
        """Give `ip:port` on which the host's node listens."""

    @abstractmethod
    def http(self, host: int) -> str: ...

    @abstractmethod
    def move(self, host: int) -> str:
        """Give the host another address, which nobody knows yet; the old one is gone."""

    @abstractmethod
    def command(self, host: int, command: Sequence[str]) -> list[str]:
        """Return what runs `command` on the host, as the same process."""

    # What only some hosts can do raises on the others: the plan asks `can_cut` and `can_lose` first.

    def cut(self, links: Iterable[Link]) -> None:
        """Let nothing pass over these links. Only where `can_cut`."""
        raise NotImplementedError(f"{self.kind} hosts have no links to cut")

    def heal(self, links: Iterable[Link]) -> None:
        raise NotImplementedError(f"{self.kind} hosts have no links to heal")

    def lose(self, link: Link, part: float) -> None:
        """Lose this part of the link's packets at random; 0: none. Only where `can_lose`."""
        raise NotImplementedError(f"{self.kind} hosts have no links that could lose packets")

    def close_inbound(self, host: int) -> None:
        """Drop what would open a connection to the host, as a firewall does; its own calls are answered."""
        raise NotImplementedError(f"{self.kind} hosts have no firewall")

    @abstractmethod
    def close(self) -> None:
        """Remove everything."""


class LoopbackHosts(Hosts):
    """Addresses 127.x.y.z: what needs no right, and has no links that could be cut."""

    kind = "loopback"

    def __init__(self, count: int) -> None:
        assert 1 <= count <= MAX_HOSTS
        own = os.getpid() % 40_000 + 2_000  # suites that run side by side should not meet
        self._network = f"127.{own // 200 + 10}.{own % 200 + 10}"
        self._last = list(range(10, 10 + count))
        self._moves = 0

    def address(self, host: int) -> str:
        return f"{self._network}.{self._last[host]}:{PORT}"

    def http(self, host: int) -> str:
        return f"{self._network}.{self._last[host]}:{HTTP_PORT}"

    def move(self, host: int) -> str:
        self._moves += 1
        self._last[host] = 10 + MAX_HOSTS + self._moves % MAX_MOVES
        return self.address(host)

    def command(self, host: int, command: Sequence[str]) -> list[str]:
        return list(command)

    def close(self) -> None:
        """Do nothing: addresses of the loopback need no making."""


class NamespaceHosts(Hosts):
    """One network namespace per host, all on one bridge."""

    kind = "namespaces"
    can_cut = True
    remote = True

    def __init__(self, count: int, mark: Mark) -> None:
        assert 1 <= count <= MAX_HOSTS
        remove_stale()
        self._switch = f"{mark}-switch"
        self.names = [f"{mark}-host{index}" for index in range(count)]
        self._addresses = [f"{SUBNET}.0.{10 + index}" for index in range(count)]
        self._moves = 0
        self._cuts: set[Link] = set()
        self._applied: set[tuple[int, str]] = set()
        self._losses: dict[Link, list[str]] = {}
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        self.can_lose = self._has_statistic()

    def _build(self) -> None:
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
        ip("-n", self._switch, "link", "set", "br0", "up")
        for index, (name, address) in enumerate(zip(self.names, self._addresses, strict=True)):
            ip("netns", "add", name)
            ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", f"p{index}", "netns", self._switch)
            ip("-n", self._switch, "link", "set", f"p{index}", "master", "br0", "up")
            ip("-n", name, "address", "add", f"{address}/16", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")

    def address(self, host: int) -> str:
        return f"{self._addresses[host]}:{PORT}"

    def http(self, host: int) -> str:
        return f"{self._addresses[host]}:{HTTP_PORT}"

    def move(self, host: int) -> str:
        self._moves += 1
        old, new = self._addresses[host], f"{SUBNET}.1.{1 + self._moves % 250}"
        ip("-n", self.names[host], "address", "delete", f"{old}/16", "dev", "eth0")
        ip("-n", self.names[host], "address", "add", f"{new}/16", "dev", "eth0")
        self._addresses[host] = new
        self._applied = {each for each in self._applied if each[0] != host}  # gone with the old address
        self._apply()
        for link in [link for link in self._losses if link[0] == host]:
            self.lose(link, 0.0)  # the loss was the old way's; a new address is a new way
        return self.address(host)

    def command(self, host: int, command: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.names[host], *command]

    def cut(self, links: Iterable[Link]) -> None:
        self._cuts.update(links)
        self._apply()

    def heal(self, links: Iterable[Link]) -> None:
        self._cuts.difference_update(links)
        self._apply()

    def lose(self, link: Link, part: float) -> None:
        old = self._losses.pop(link, None)
        if old is not None:
            self._iptables(link[1], "-D", old)
        if part > 0:
            # Where they arrive: a sender whose own packet is dropped would be told so.
            random = ["-m", "statistic", "--mode", "random", "--probability", f"{part:.3f}"]
            rule = ["INPUT", "-s", self._addresses[link[0]], *random, "-j", "DROP"]
            self._iptables(link[1], "-A", rule)
            self._losses[link] = rule

    def close_inbound(self, host: int) -> None:
        """As of `Hosts`. Raises `OSError` or `CalledProcessError` where iptables is missing."""
        self._iptables(host, "-A", ["INPUT", "-i", "eth0", "-p", "tcp", "--syn", "-j", "DROP"])

    def close(self) -> None:
        for name in [*self.names, self._switch]:
            with contextlib.suppress(subprocess.CalledProcessError):  # it is gone already, or its run still ends
                ip("netns", "delete", name)

    def _apply(self) -> None:
        """Make the neighbor entries what the cuts ask for, whatever addresses the hosts have now."""
        wanted = {(source, self._addresses[target]) for source, target in self._cuts}
        for host in {source for source, _ in self._applied ^ wanted}:
            healed = [address for source, address in self._applied - wanted if source == host]
            cut = [address for source, address in wanted - self._applied if source == host]
            lines = [f"neighbor delete {address} dev eth0" for address in healed]
            lines += [f"neighbor replace {address} lladdr {NOWHERE} dev eth0 nud permanent" for address in cut]
            _run("ip", "-n", self.names[host], "-batch", "-", stdin="\n".join(lines) + "\n")
        self._applied = wanted

    def _iptables(self, host: int, action: str, rule: list[str]) -> None:
        _run("ip", "netns", "exec", self.names[host], "iptables", "-w", action, *rule)

    def _has_statistic(self) -> bool:
        rule = ["INPUT", "-s", f"{SUBNET}.255.1", "-m", "statistic", "--mode", "random", "--probability", "0.5"]
        try:
            self._iptables(0, "-A", [*rule, "-j", "DROP"])
            self._iptables(0, "-D", [*rule, "-j", "DROP"])
        except (subprocess.CalledProcessError, OSError):
            return False
        return True


def make_hosts(count: int, mark: Mark) -> Hosts:
    """Make namespaces where that is possible, else loopback addresses."""
    return LoopbackHosts(count) if namespaces_missing() else NamespaceHosts(count, mark)


def namespaces_missing() -> str:
    """Say why no network namespaces can be made here; empty when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = f"{Mark()}-probe"
    try:
        ip("netns", "add", probe)
        try:
            ip("-n", probe, "link", "add", "one", "type", "veth", "peer", "name", "other")
            ip("-n", probe, "link", "add", "br0", "type", "bridge")
        finally:
            ip("netns", "delete", probe)
    except OSError:
        return "network namespaces need the command ip (iproute2)"
    except subprocess.CalledProcessError as error:
        return f"this machine makes no network namespaces: {error.stderr.strip()}"
    return ""


def remove_stale() -> list[str]:
    """Remove the namespaces of runs that are over."""
    folder = Path("/run/netns")
    stale = [entry.name for entry in folder.iterdir() if Mark.stale(entry.name)] if folder.is_dir() else []
    for name in stale:
        with contextlib.suppress(subprocess.CalledProcessError):  # it is gone already, or its run still ends
            ip("netns", "delete", name)
    return stale


def ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str, stdin: str = "") -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, input=stdin)

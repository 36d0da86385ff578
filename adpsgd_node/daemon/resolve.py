"""Look up where the seeds lead: names with many addresses, and SRV records.

Addresses of a name are asked of the system (`getaddrinfo`), so that /etc/hosts and whatever else the machine is told to
use counts, as it does for the names in plain `host:port` seeds; SRV records the system cannot give, so these are asked
of the name servers directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence

from adpsgd_node.errors import UnreachableError
from adpsgd_node.ids import Address
from adpsgd_node.seed import MAX_SEEDS, Seed, SeedKind
from adpsgd_node.telemetry.log import EventLog, OncePer

__all__ = ["LOOKUP_TIMEOUT_S", "SeedResolver", "look_up"]

LOOKUP_TIMEOUT_S = 5.0
"""How long one look-up may take; a slower one goes on in the background, and its answer counts the next time."""
LOG_AGAIN_S = 300.0
MAX_ANSWER = 4096
"""Addresses looked at in one answer."""


class SeedResolver:
    """Keeps what each seed led to last: an answer that is empty or does not come takes nothing away."""

    def __init__(
        self,
        seeds: Sequence[Seed],
        rng: random.Random,
        lookup: Callable[[Seed], Awaitable[list[Address]]] | None = None,
    ) -> None:
        self._seeds = tuple(dict.fromkeys(seeds))  # one given twice is one
        self._rng = rng
        self._lookup = lookup or look_up
        self._known: dict[Seed, list[Address]] = {
            seed: [Address(seed.text)] for seed in seeds if seed.kind is SeedKind.PLAIN
        }
        self._under_way: dict[Seed, asyncio.Future[list[Address]]] = {}
        self._log = EventLog("seeds")
        self._once = OncePer(LOG_AGAIN_S)

    @property
    def needed(self) -> bool:
        """Whether there is anything to look up."""
        return any(seed.kind is not SeedKind.PLAIN for seed in self._seeds)

    @property
    def plain(self) -> tuple[Address, ...]:
        """The seeds that are addresses themselves."""
        return tuple(Address(seed.text) for seed in self._seeds if seed.kind is SeedKind.PLAIN)

    async def resolve(self) -> tuple[tuple[Address, ...], tuple[str, ...]]:
        """Look all names up; return up to `MAX_SEEDS` addresses, and the seeds that led to none yet, with reasons."""
        named = [seed for seed in self._seeds if seed.kind is not SeedKind.PLAIN]
        reasons = await asyncio.gather(*(self._refresh(seed) for seed in named))
        nowhere = [f"{seed}: {why}" for seed, why in zip(named, reasons, strict=True) if seed not in self._known]
        return self._addresses(), tuple(nowhere)

    def close(self) -> None:
        """Forget the look-ups under way."""
        for future in self._under_way.values():
            future.cancel()

    async def _refresh(self, seed: Seed) -> str:
        """Look one name up; return why nothing came of it, or nothing."""
        future = self._under_way.get(seed)
        if future is None:
            future = self._under_way[seed] = asyncio.ensure_future(self._lookup(seed))
        await asyncio.wait((future,), timeout=LOOKUP_TIMEOUT_S)
        if not future.done():
            return self._failed(seed, f"no answer in {LOOKUP_TIMEOUT_S:g} s")
        del self._under_way[seed]
        try:
            addresses = future.result()[:MAX_ANSWER]
        except UnreachableError as error:
            return self._failed(seed, str(error))
        if not addresses:
            return self._failed(seed, "no address")
        self._keep(seed, addresses)
        return ""

    def _failed(self, seed: Seed, why: str) -> str:
        if self._once.due((seed, why), asyncio.get_running_loop().time()):
            kept = len(self._known.get(seed, ()))
            self._log.warning("a seed leads nowhere now; it is looked up again", seed=seed, why=why, known=kept)
        return why

    def _keep(self, seed: Seed, addresses: list[Address]) -> None:
        """Take over an answer. Of more than can be kept, those kept already stay, as who is behind them is known."""
        before = self._known.get(seed, [])
        stay = [address for address in before if address in addresses]
        new = [address for address in dict.fromkeys(addresses) if address not in stay]
        self._rng.shuffle(new)
        self._known[seed] = [*stay, *new][:MAX_SEEDS]
        if set(before) != set(self._known[seed]):
            self._log.info("a seed leads to other addresses now", seed=seed, addresses=len(addresses))

    def _addresses(self) -> tuple[Address, ...]:
        """Take from each seed in turn, so that a name with a thousand addresses does not push the others out."""
        lists = [self._known[seed] for seed in self._seeds if seed in self._known]
        longest = max(map(len, lists), default=0)
        ranked = [known[rank] for rank in range(longest) for known in lists if rank < len(known)]
        return tuple(dict.fromkeys(ranked))[:MAX_SEEDS]


async def look_up(seed: Seed, server: tuple[str, int] | None = None) -> list[Address]:
    """Ask where one seed leads; for an SRV record ask `server`, or those of the system. Raises `UnreachableError`."""
    if seed.kind is SeedKind.SERVICE:
        return await _service_targets(seed.host, server)
    if seed.kind is SeedKind.ALL:
        return await _all_addresses(seed.host, seed.port)
    return [Address(seed.text)]


async def _all_addresses(host: str, port: int) -> list[Address]:
    """Ask in a thread that the end of the process does not wait for: the system may take half a minute to give up."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[list[str]] = loop.create_future()

    def answer(found: list[str] | UnreachableError) -> None:
        if answered.done():
            return
        if isinstance(found, UnreachableError):
            answered.set_exception(found)
        else:
            answered.set_result(found)

    def ask() -> None:
        found: list[str] | UnreachableError
        try:
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            found = UnreachableError(getattr(error, "strerror", None) or str(error))
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(answer, found)

    threading.Thread(target=ask, name=f"look up {host}", daemon=True).start()
    return [_address(text, port) for text in await answered if _is_dialable(text)]


async def _service_targets(name: str, server: tuple[str, int] | None) -> list[Address]:
    """Ask for the SRV record (RFC 2782), lowest priority first; the names of its targets are resolved when dialed."""
    import dns.asyncresolver  # takes 0.1 s, and few nodes need it
    import dns.exception
    import dns.resolver

    try:
        resolver = dns.asyncresolver.Resolver(configure=server is None)
        if server is not None:
            resolver.nameservers, resolver.port = [server[0]], server[1]
        answer = await resolver.resolve(name, "SRV", lifetime=LOOKUP_TIMEOUT_S, search=True)
    except dns.resolver.NXDOMAIN:
        raise UnreachableError("no such name") from None
    except dns.resolver.NoAnswer:
        raise UnreachableError("the name has no SRV record") from None
    except (dns.exception.DNSException, OSError) as error:
        raise UnreachableError(str(error) or type(error).__name__) from None
    records = sorted(answer, key=lambda record: (record.priority, -record.weight))
    targets = [(record.target.to_text(omit_final_dot=True), record.port) for record in records]
    return [_address(target, port) for target, port in targets if target not in ("", ".") and port]


def _address(host: str, port: int) -> Address:
    return Address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _is_dialable(text: str) -> bool:
    """Tell whether an address stands for itself: one that counts on a single link only needs the link's name too."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_link_local or address.is_unspecified or address.is_multicast)

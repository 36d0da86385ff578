"""Read the forms in which a user may say where other nodes are found."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from adpsgd_node.address import split_address

__all__ = ["MAX_SEEDS", "SEED_FORMS", "Seed", "SeedKind", "parse_seed"]

MAX_SEEDS = 64
"""Most seeds a user may give, and most addresses kept of what they resolve to."""

SEED_FORMS = "host:port, dns+a://name:port (all addresses of the name) or dns+srv://_service._proto.name"
"""What a seed looks like, for error messages."""

_MAX_NAME_LENGTH = 253
"""Longest host name (RFC 1035, section 3.1, written without its root)."""

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


class SeedKind(enum.Enum):
    """How a seed leads to addresses."""

    PLAIN = "plain"
    """It is an address; a host name in it is resolved at each dial."""
    ALL = "dns+a"
    """Each IPv4 and IPv6 address of the name is one."""
    SERVICE = "dns+srv"
    """Each target and port of the SRV record is one."""


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed as the user gave it."""

    kind: SeedKind
    host: str
    port: int
    """0 in a SERVICE: the record says which."""
    text: str

    def __str__(self) -> str:
        return self.text


def parse_seed(text: str) -> Seed:
    """Read one seed. Raises `ValueError` that names the forms."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Seed(SeedKind.PLAIN, *_host_and_port(text, text), text)
    if scheme == SeedKind.ALL.value:
        host, port = _host_and_port(rest, text)
        if not _is_name(host):
            raise _unfit(text)
        return Seed(SeedKind.ALL, host, port, text)
    if scheme == SeedKind.SERVICE.value and _is_name(rest) and rest.count(".") >= 2:
        return Seed(SeedKind.SERVICE, rest, 0, text)
    raise _unfit(text)


def _host_and_port(address: str, text: str) -> tuple[str, int]:
    try:
        return split_address(address)
    except ValueError:
        raise _unfit(text) from None


def _is_name(host: str) -> bool:
    """Tell whether `host` is a DNS name (a final dot, which stops the search of other domains, is part of one)."""
    name = host.removesuffix(".")
    return 0 < len(name) <= _MAX_NAME_LENGTH and all(_LABEL.fullmatch(label) for label in name.split("."))


def _unfit(text: str) -> ValueError:
    return ValueError(f"{text!r} is no seed: {SEED_FORMS} expected")

"""Take addresses apart, and tell which of them only this machine can reach."""

from __future__ import annotations

import ipaddress
import re

__all__ = ["ADDRESS_FORM", "is_loopback", "split_address"]

ADDRESS_FORM = "host:port with a port from 0 to 65535, IPv6 hosts as [::1]:7400"
"""What an address looks like, for error messages."""


def split_address(text: str) -> tuple[str, int]:
    """Cut `host:port` in two, an IPv6 host without its brackets. Raises `ValueError`."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    valid_port = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535
    if not colon or not host or not valid_port or (":" in host) != bracketed or re.search(r"[\s/]", host):
        raise ValueError(f"{text!r} is no address: {ADDRESS_FORM} expected")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach `host`; a name other than localhost may resolve to anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

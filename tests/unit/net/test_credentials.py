from __future__ import annotations

import pytest

from adpsgd_node.errors import ConfigError
from adpsgd_node.ids import Address
from adpsgd_node.net.credentials import Credentials, split_address


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.9.1:7800", "localhost:7800", "[::1]:7800"])
def test_loopback_needs_no_consent(address: str) -> None:
    Credentials().check(Address(address))
    assert not Credentials().exposed(Address(address))


@pytest.mark.parametrize("address", ["0.0.0.0:7800", "[::]:7800", "10.0.0.7:7800", "node-1.example:7800"])
def test_exposed_port_needs_the_explicit_option(address: str) -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        Credentials().check(Address(address))
    accepted = Credentials(insecure=True)
    accepted.check(Address(address))
    assert accepted.exposed(Address(address))


@pytest.mark.parametrize(
    ("address", "parts"),
    [("a:1", ("a", 1)), ("[::1]:65535", ("::1", 65535)), ("127.0.0.1:0", ("127.0.0.1", 0))],
)
def test_address_is_split_into_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(Address(address)) == parts


@pytest.mark.parametrize("address", ["", "host", ":1", "host:", "host:x", "host:65536", "::1:80", "host:-1"])
def test_what_is_no_address_is_named_with_an_example(address: str) -> None:
    with pytest.raises(ConfigError, match=r"host:port"):
        Credentials().check(Address(address))

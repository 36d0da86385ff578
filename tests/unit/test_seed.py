from __future__ import annotations

import pytest

from adpsgd_node.seed import Seed, SeedKind, parse_seed


@pytest.mark.parametrize(
    ("text", "kind", "host", "port"),
    [
        ("a:7400", SeedKind.PLAIN, "a", 7400),
        ("[::1]:7400", SeedKind.PLAIN, "::1", 7400),
        ("dns+a://adpsgd.example:7400", SeedKind.ALL, "adpsgd.example", 7400),
        ("dns+a://adpsgd.example.:7400", SeedKind.ALL, "adpsgd.example.", 7400),
        ("dns+srv://_gossip._tcp.adpsgd", SeedKind.SERVICE, "_gossip._tcp.adpsgd", 0),
    ],
)
def test_each_form_is_read(text: str, kind: SeedKind, host: str, port: int) -> None:
    assert parse_seed(text) == Seed(kind, host, port, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a:b",
        "http://a:1",
        "dns+a://a",
        "dns+a://:7400",
        "dns+a://a b:7400",
        "dns+a://[::1]:7400",
        "dns+a://" + "a" * 64 + ":7400",
        "dns+a://" + ".".join(["a" * 60] * 5) + ":7400",
        "dns+srv://",
        "dns+srv://gossip",
        "dns+srv://_gossip._tcp.a:7400",
        "dns+srv://_gossip._tcp..a",
        "dns+aaaa://a:1",
    ],
)
def test_anything_else_is_refused_with_the_forms_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port, dns\+a://name:port .* or dns\+srv://"):
        parse_seed(text)

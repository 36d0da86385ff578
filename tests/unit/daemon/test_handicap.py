"""Which nodes are slowed down on purpose, and by how much; what cannot be meant is refused by name."""

from __future__ import annotations

import re

import pytest

from adpsgd_node.config import compose
from adpsgd_node.daemon.handicap import HandicapConfig
from adpsgd_node.daemon.settings import NodeConfig
from adpsgd_node.errors import ConfigError


def composed(**flags: object) -> HandicapConfig:
    return compose(NodeConfig, None, flags, {}).handicap


def test_by_default_nothing_is_slowed_down() -> None:
    handicap = composed()
    assert (handicap.slow_factor("a"), handicap.link_factor("a")) == (1.0, 1.0)
    assert (handicap.emulate_step_s, handicap.link_bytes_per_s) == (0.0, 0.0)


def test_each_node_takes_the_entry_with_its_own_name() -> None:
    handicap = composed(slow="a=2, b=10.5", slow_link="b=100")
    assert [handicap.slow_factor(name) for name in "abc"] == [2.0, 10.5, 1.0]
    assert [handicap.link_factor(name) for name in "abc"] == [1.0, 100.0, 1.0]


def test_milliseconds_and_megabits_become_seconds_and_bytes() -> None:
    handicap = composed(emulate_step_ms="50", emulate_link_mbps="80")
    assert handicap.emulate_step_s == pytest.approx(0.05)
    assert handicap.link_bytes_per_s == pytest.approx(10e6)


@pytest.mark.parametrize("key", ["slow", "slow_link"])
@pytest.mark.parametrize("entry", ["a", "a=", "a=x", "=2", "a=0.5", "a=-2", "a=nan", "a=inf", "a=10001", "no/name=2"])
def test_unusable_entry_is_quoted_with_the_form_wanted(key: str, entry: str) -> None:
    message = f"{key} = '{entry}': expected NODE=FACTOR with a node's name and a factor of 1 to 10000 (set by --"
    with pytest.raises(ConfigError, match=re.escape(message)):
        composed(**{key: f"b=2,{entry}"})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"slow": "a=2,a=3"}, "slow = 'a=3': expected one entry for each node, as a has another"),
        ({"slow": ",".join(f"n{i}=2" for i in range(4097))}, "slow = '4097 entries': expected at most 4096"),
        ({"emulate_step_ms": "-1"}, "emulate_step_ms = -1.0: expected 0 to 3600000"),
        ({"emulate_link_mbps": "1e7"}, "emulate_link_mbps = 10000000.0: expected 0 to 1000000"),
    ],
)
def test_unusable_setting_is_refused_by_name(flags: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        composed(**flags)

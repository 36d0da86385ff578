from __future__ import annotations

import pytest

from adpsgd_node.core.membership.config import MAX_UPDATES_PER_PACKET, PRESETS, MembershipConfig, membership_preset
from adpsgd_node.core.membership.suspicion import least_suspicion_s
from adpsgd_node.errors import ConfigError


def test_default_is_the_lan_preset() -> None:
    assert MembershipConfig() == membership_preset("lan")


def test_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'moon'.*lan, local, wan"):
        membership_preset("moon")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_lets_a_suspect_live_longer_than_a_whole_probe(name: str) -> None:
    config = membership_preset(name)
    probe_s = config.ack_timeout_s + config.indirect_timeout_s + config.probe_interval_s
    assert least_suspicion_s(config, 2) >= max(3.0, probe_s)


@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_time_that_is_not_positive_is_refused_by_name(value: float) -> None:
    with pytest.raises(ConfigError, match=r"membership\.probe_interval_s"):
        MembershipConfig(probe_interval_s=value)


def test_factor_that_would_shorten_the_longest_suspicion_is_refused() -> None:
    with pytest.raises(ConfigError, match="suspicion_max_factor"):
        MembershipConfig(suspicion_max_factor=0.5)


def test_more_news_in_a_packet_than_a_receiver_takes_is_refused() -> None:
    with pytest.raises(ConfigError, match="updates_per_packet"):
        MembershipConfig(updates_per_packet=MAX_UPDATES_PER_PACKET + 1)

from __future__ import annotations

import pytest

from adpsgd_node.daemon.beyond import BeyondConfig
from adpsgd_node.daemon.settings import AlgorithmName, NodeConfig
from adpsgd_node.setting import SettingError


def test_both_options_are_off_by_default() -> None:
    assert NodeConfig().beyond == BeyondConfig(acceleration=False, rate_correction=0.0)


@pytest.mark.parametrize("value", [0.5, -1.0, 101.0])
def test_a_bound_that_would_bound_nothing_or_turn_it_round_is_refused(value: float) -> None:
    with pytest.raises(SettingError, match=r"rate_correction = .*expected 0, or 1 to 100"):
        BeyondConfig(rate_correction=value)


@pytest.mark.parametrize(
    ("options", "named"),
    [(BeyondConfig(acceleration=True), "acceleration"), (BeyondConfig(rate_correction=4.0), "rate_correction")],
    ids=["acceleration", "rate correction"],
)
def test_another_algorithm_has_neither_and_the_error_names_the_option(options: BeyondConfig, named: str) -> None:
    assert NodeConfig(beyond=options).beyond is options
    with pytest.raises(SettingError, match=rf"{named} = .*algorithm = ad-psgd, and d-psgd is chosen"):
        NodeConfig(algorithm=AlgorithmName.D_PSGD, beyond=options)

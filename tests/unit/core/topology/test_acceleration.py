from __future__ import annotations

import math

import numpy as np
import pytest

from adpsgd_node.core.topology import topology_named
from adpsgd_node.core.topology.acceleration import LAG, constants, exchange_rates, mixed_part


@pytest.mark.parametrize("time", [0.01, 0.7, 3.0])
def test_mixing_is_the_matrix_exponential_of_the_paper(time: float) -> None:
    eta = 0.4
    exponent = time * np.array([[-eta, eta], [eta, -eta]])
    series, term = np.eye(2), np.eye(2)
    for k in range(1, 60):
        term = term @ exponent / k
        series += term
    part = mixed_part(eta, time)
    np.testing.assert_allclose([[1 - part, part], [part, 1 - part]], series, rtol=1e-12)


def test_constants_are_those_of_the_paper_for_the_rates_that_the_lag_leaves() -> None:
    connectivity, resistance = 0.1, 0.9
    chi1, chi2 = 1 / connectivity, resistance / 2
    found = constants(connectivity, resistance)
    assert found.momentum_share == pytest.approx(math.sqrt(chi1 / chi2))
    assert found.mixing_rate == pytest.approx(LAG / (2 * math.sqrt(chi1 * chi2)))


def test_a_faster_network_mixes_faster_and_leaves_the_share_as_it_is() -> None:
    slow, fast = constants(0.1, 0.9), constants(4 * 0.1, 0.9 / 4)
    assert fast.mixing_rate == pytest.approx(4 * slow.mixing_rate)
    assert fast.momentum_share == pytest.approx(slow.momentum_share)


def test_an_edge_is_used_as_often_as_its_two_ends_draw_it() -> None:
    star = topology_named("custom", "a:b,a:c,a:d")
    rates = exchange_rates(star, ["a", "b", "c", "d"], ())
    assert rates == pytest.approx({("a", "b"): 4 / 3, ("a", "c"): 4 / 3, ("a", "d"): 4 / 3})


def test_nobody_starts_an_exchange_with_a_member_that_cannot_be_called() -> None:
    rates = exchange_rates(topology_named("complete"), ["a", "b", "c"], {"b"})
    # a calls c, c calls a, b calls either.
    assert rates == pytest.approx({("a", "c"): 2.0, ("a", "b"): 0.5, ("b", "c"): 0.5})

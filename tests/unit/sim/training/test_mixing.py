"""When the messages of a round of mixing arrive, and what becomes of those that are lost."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adpsgd_node.sim.training.link import link_table
from adpsgd_node.sim.training.mixing import Mixing
from adpsgd_node.sim.training.scenario import NetworkConfig, TrainingScenario


def mixing_of(nodes: int, topology: str = "complete", **network: object) -> Mixing:
    """Make a mixing in which a message takes 0.1 s on a link, and 10 ms to get there."""
    given = {"latency_ms": 10.0, "bandwidth_mbps": 8.0, "model_bytes": 100_000, **network}
    config = NetworkConfig(**given)  # type: ignore[arg-type]
    scenario = TrainingScenario(nodes=nodes, topology=topology, network=config)
    return Mixing(scenario, link_table(scenario), range(nodes))


NEVER = math.inf


def test_a_node_sends_to_the_next_one_first_and_to_one_after_the_other() -> None:
    mixing = mixing_of(4)

    assert mixing.neighbors[2].tolist() == [3, 0, 1]
    assert mixing.departures(np.array([0.0, 1.0, 2.0, 3.0]))[1] == pytest.approx([1.1, 1.2, 1.3])


def test_messages_that_come_one_by_one_do_not_wait_for_each_other() -> None:
    mixing = mixing_of(4)

    arrived, missing = mixing.arrivals(mixing.departures(np.zeros(4)), np.full(4, NEVER))

    assert arrived == pytest.approx([0.31] * 4)
    assert not missing.any()


def test_messages_that_come_together_queue_for_the_link_down() -> None:
    mixing = mixing_of(4)
    # n3 sends to n0 first, n2 second, n1 third: begun like this, all three reach n0 from 0.21 s on.
    left = mixing.departures(np.array([9.0, 0.0, 0.1, 0.2]))

    arrived, _ = mixing.arrivals(left, np.full(4, NEVER))

    assert arrived[0] == pytest.approx(0.21 + 3 * 0.1)


def test_a_slow_link_delays_what_comes_as_well_as_what_goes() -> None:
    mixing = mixing_of(3, slow_link=("n1=4",))

    arrived, _ = mixing.arrivals(mixing.departures(np.zeros(3)), np.full(3, NEVER))

    # n1 sends for 0.8 s, to n2 first; down to it go two messages of 0.4 s each, the first from 0.01 s on.
    assert arrived == pytest.approx([0.81, 0.81, 0.41])


def test_what_has_not_left_when_its_sender_is_lost_never_comes() -> None:
    mixing = mixing_of(4)
    lost = np.array([NEVER, NEVER, 0.25, NEVER])  # n2 has sent to n3 and n0 by then, not to n1

    _, missing = mixing.arrivals(mixing.departures(np.zeros(4)), lost)

    assert [(own, mixing.neighbors[own, slot]) for own, slot in np.argwhere(missing).tolist()] == [(1, 2)]
    mixing.drop(missing)
    mixed = mixing.mix(np.array([[0.0], [0.0], [8.0], [0.0]]))
    assert mixed.ravel() == pytest.approx([2.0, 0.0, 2.0, 2.0])
    assert mixing.delivered(missing, np.array([True, True, False, True])) == 8


@pytest.mark.parametrize("nodes", [6, 60])
def test_the_mean_is_kept_whether_rows_are_gathered_or_multiplied(nodes: int) -> None:
    for topology in ("ring", "exponential", "hypercube"):
        values = np.random.default_rng(2).standard_normal((nodes, 3))

        mixed = mixing_of(nodes, topology).mix(values)

        np.testing.assert_allclose(mixed.mean(axis=0), values.mean(axis=0), atol=1e-14)
        assert mixed.std() < values.std()


def test_one_node_mixes_with_nobody() -> None:
    mixing = mixing_of(1)

    arrived, missing = mixing.arrivals(mixing.departures(np.zeros(1)), np.full(1, NEVER))

    assert arrived.tolist() == [-math.inf]
    assert missing.size == 0
    assert mixing.mix(np.array([[3.0]])).tolist() == [[3.0]]

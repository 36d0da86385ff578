from __future__ import annotations

from adpsgd_node.core.membership.health import MAX_HEALTH, Health


def test_healthy_node_waits_as_long_as_configured() -> None:
    health = Health()
    assert (health.score, health.scaled(0.5)) == (0, 0.5)
    health.improve()
    assert health.score == 0


def test_each_sign_of_illness_makes_the_node_wait_longer_and_each_ack_less_so() -> None:
    health = Health()
    health.worsen(2)
    assert health.scaled(0.5) == 1.5
    health.improve()
    assert health.scaled(0.5) == 1.0


def test_score_ends_at_its_maximum() -> None:
    health = Health()
    health.worsen(1000)
    assert health.score == MAX_HEALTH
    assert health.scaled(1.0) == 9.0

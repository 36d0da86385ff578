"""Say how long a suspect has to refute."""

from __future__ import annotations

import math

from adpsgd_node.core.membership.config import MembershipConfig

__all__ = ["suspicion_timeout_s"]


def suspicion_timeout_s(config: MembershipConfig, members: int) -> float:
    """Return the seconds a suspect has in a run of `members` live nodes.

    News needs about log(n) rounds to reach everyone (SWIM, section 4.2), and the refutation as many to come back.
    """
    rounds = config.suspicion_multiplier * max(1.0, math.log10(max(1, members)))
    return max(config.minimum_suspicion_s, rounds * config.probe_interval_s)

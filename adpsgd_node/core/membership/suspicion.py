"""Say how long each suspect has to refute: the shorter, the more members found it silent (Lifeguard).

Dadgar, Phillips, Currey 2018 (arXiv 1707.00788), section 4.B: a single accuser may itself be at fault, so its suspect
gets the longest time; every further member whose OWN probe failed shortens it. Hearsay does not count: news of one
accusation comes from everybody, which is why a claim names its accuser.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.member import Member

__all__ = ["Suspicions", "least_suspicion_s", "suspicion_timeout_s"]


def least_suspicion_s(config: MembershipConfig, members: int) -> float:
    """Return the seconds a suspect has at least in a run of `members` live nodes.

    News needs about log(n) rounds to reach everyone (SWIM, section 4.2), and the refutation as many to come back.
    """
    rounds = config.suspicion_multiplier * max(1.0, math.log10(max(1, members)))
    return max(config.minimum_suspicion_s, rounds * config.probe_interval_s)


def suspicion_timeout_s(config: MembershipConfig, members: int, confirmations: int, judges: int | None = None) -> float:
    """Return the seconds a suspect has in all when `confirmations` members agree with the first that suspected it.

    With C confirmations of the K wanted: max(least, most - (most - least) * log(C + 1) / log(K + 1)). `judges`: how
    many there are that can accuse it at all; None: every other member.
    """
    least_s = least_suspicion_s(config, members)
    wanted = min(config.suspicion_confirmations, members - 2)  # neither the first accuser nor the suspect can confirm
    if judges is not None:
        wanted = min(wanted, judges - 1)
    if wanted < 1:
        return least_s
    most_s = config.suspicion_max_factor * least_s
    return max(least_s, most_s - (most_s - least_s) * math.log(confirmations + 1) / math.log(wanted + 1))


@dataclass(slots=True)
class _Suspicion:
    since: float
    members: int
    accusers: list[str]
    judges: int | None


class Suspicions:
    """The suspects, since when and by whom: at most `suspicion_confirmations` + 1 names each."""

    def __init__(self, config: MembershipConfig) -> None:
        self._config = config
        self._open: dict[str, _Suspicion] = {}

    def begin(self, suspect: Member, members: int, now: float, judges: int | None = None) -> float:
        """Take note of a new suspect among `members` live nodes; return when its time is up."""
        suspicion = self._open[suspect.name] = _Suspicion(now, members, [suspect.suspected_by], judges)
        return self._over(suspicion)

    def confirm(self, claim: Member, now: float) -> float | None:
        """Count one more accuser; return when the suspect's time is up now, None when that says nothing new."""
        suspicion = self._open.get(claim.name)
        if suspicion is None or not claim.suspected_by or claim.suspected_by in suspicion.accusers:
            return None
        if len(suspicion.accusers) > self._config.suspicion_confirmations:
            return None
        suspicion.accusers.append(claim.suspected_by)
        return max(now, self._over(suspicion))

    def hasten(self, name: str, now: float) -> float | None:
        """Leave a suspect the least time, as one accuser is enough; return its end, None when that was so before."""
        suspicion = self._open.get(name)
        if suspicion is None or suspicion.judges == 1:
            return None
        suspicion.judges = 1
        return max(now, self._over(suspicion))

    def end(self, name: str) -> None:
        """Forget the suspicion of `name`, if there is one."""
        self._open.pop(name, None)

    def postpone(self, by_s: float) -> None:
        """Give every suspect `by_s` seconds more: this node was not there to hear it refute."""
        for suspicion in self._open.values():
            suspicion.since += by_s

    def _over(self, suspicion: _Suspicion) -> float:
        confirmations = len(suspicion.accusers) - 1
        return suspicion.since + suspicion_timeout_s(self._config, suspicion.members, confirmations, suspicion.judges)

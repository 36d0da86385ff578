"""Find the run through the seeds: ask them in turn, and for ever (the driver enforces a join timeout)."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from adpsgd_node.core.membership.config import MAX_SEEDS, MembershipConfig
from adpsgd_node.core.membership.effect import AskToJoin, Effect, Joined, Waiting
from adpsgd_node.core.membership.schedule import JoinDue, Schedule
from adpsgd_node.errors import ConfigError
from adpsgd_node.ids import Address

__all__ = ["Joining"]


class Joining:
    """Asks one seed at a time while this node has not joined, and again whenever it finds itself alone."""

    def __init__(
        self, own: Address, seeds: Sequence[Address], schedule: Schedule, config: MembershipConfig, rng: random.Random
    ) -> None:
        self._seeds = tuple(dict.fromkeys(seed for seed in seeds if seed != own))
        if len(self._seeds) > MAX_SEEDS:
            raise ConfigError(f"{len(self._seeds)} seeds are more than {MAX_SEEDS}: a few that are mostly up suffice.")
        self._schedule = schedule
        self._config = config
        self._rng = rng
        self.joined = False
        self._seeking = False
        self._asked: Address | None = None
        self._attempt = 0  # a timer of an earlier attempt is ignored
        self._turn = 0
        self._rounds = 0
        self._failures: dict[Address, str] = {}
        self._aliases: set[Address] = set()  # seeds that turned out to lead to this node itself

    def start(self, now: float) -> list[Effect]:
        """Ask the first seed, or be joined at once when there is no other node to ask."""
        if not self._seeds:
            self.joined = True
            return [Joined(None)]
        return self._seek(now)

    def review(self, alone: bool, now: float) -> list[Effect]:
        """Go and look for the others if none is left; stop looking once there are some."""
        if not self.joined or not self._seeds:
            return []
        if alone and not self._seeking:
            return self._seek(now)
        if not alone and self._seeking:
            self._seeking = False
        return []

    def accepted(self, seed: Address) -> list[Effect]:
        """Take note that `seed` let this node in."""
        self._seeking = False
        if self.joined:
            return []
        self.joined = True
        return [Joined(seed)]

    def answered_by_self(self, seed: Address, now: float) -> list[Effect]:
        """Take note that `seed` leads back here. If all do, this node is the first of the run, until more turn up."""
        self._aliases.add(seed)
        effects: list[Effect] = []
        if not self.joined and self._aliases.issuperset(self._seeds):
            self.joined = True
            effects.append(Joined(None))
        return [*effects, *self.failed(seed, "is this node itself", now)]

    def failed(self, seed: Address, why: str, now: float) -> list[Effect]:
        """Go on to the next seed; after the last one wait a while, each time longer."""
        if not self._seeking or seed != self._asked:
            return []
        self._asked = None
        self._failures[seed] = why
        if self._turn % len(self._seeds):
            return self._ask(now)
        ceiling_s = min(self._config.join_backoff_max_s, self._config.join_backoff_min_s * 2.0 ** min(self._rounds, 32))
        wait_s = ceiling_s * self._rng.uniform(0.5, 1.0)
        self._rounds += 1
        self._attempt += 1
        self._schedule.add(now + wait_s, JoinDue(self._attempt))
        reasons = "; ".join(f"{asked}: {reason}" for asked, reason in self._failures.items())
        return [Waiting(f"no seed lets this node in ({reasons}); asking again in {wait_s:.1f} s")]

    def due(self, timer: JoinDue, now: float) -> list[Effect]:
        """Ask the next seed, or give up on the one that does not answer."""
        if not self._seeking or timer.attempt != self._attempt:
            return []
        if self._asked is not None:
            return self.failed(self._asked, f"no answer in {self._config.join_answer_timeout_s:g} s", now)
        return self._ask(now)

    def revisit(self, reached: Collection[Address]) -> list[Effect]:
        """Ask one seed that is no live member's address: it may know members that this node lost or never met."""
        missing = [seed for seed in self._seeds if seed not in reached and seed not in self._aliases]
        if not self.joined or self._seeking or not missing:
            return []
        self._turn += 1
        return [AskToJoin(missing[self._turn % len(missing)])]

    def _seek(self, now: float) -> list[Effect]:
        self._seeking = True
        self._turn = 0
        self._rounds = 0
        self._failures.clear()
        return self._ask(now)

    def _ask(self, now: float) -> list[Effect]:
        self._asked = self._seeds[self._turn % len(self._seeds)]
        self._turn += 1
        self._attempt += 1
        self._schedule.add(now + self._config.join_answer_timeout_s, JoinDue(self._attempt))
        return [AskToJoin(self._asked)]

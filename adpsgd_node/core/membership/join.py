"""Find the run through the seeds: ask them in turn, and for ever (the driver enforces a join timeout).

A node asks while it has not joined and whenever it finds itself alone; one that has company asks, now and then, the
seeds that lead to no live member, as they may know members that this node lost or never met. Seeds given by names are
looked up again each time: `ResolveSeeds` asks for it, `SeedsResolved` brings what they lead to.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence

from adpsgd_node.core.membership.config import MembershipConfig
from adpsgd_node.core.membership.effect import AskToJoin, Effect, Joined, ResolveSeeds, Waiting
from adpsgd_node.core.membership.schedule import JoinDue, Schedule
from adpsgd_node.errors import ConfigError
from adpsgd_node.ids import Address
from adpsgd_node.seed import MAX_SEEDS

__all__ = ["Joining"]

_MAX_REVISITED = 3
"""Seeds without a live member behind them that are asked at one time."""


class Joining:
    """Asks one seed at a time while this node has not joined, and again whenever it finds itself alone."""

    def __init__(
        self,
        own: Address | None,
        seeds: Sequence[Address],
        schedule: Schedule,
        config: MembershipConfig,
        rng: random.Random,
        *,
        resolving: bool = False,
    ) -> None:
        """`own`: the address that leads to this node, None when none does. `resolving`: `SeedsResolved` will come."""
        self._own = own
        self._seeds = self._others(seeds)
        if len(self._seeds) > MAX_SEEDS:
            raise ConfigError(f"{len(self._seeds)} seeds are more than {MAX_SEEDS}: a few that are mostly up suffice.")
        self._resolving = resolving
        self._schedule = schedule
        self._config = config
        self._rng = rng
        self.joined = False
        self._seeking = False
        self._rest: deque[Address] = deque()  # still to be asked in this round
        self._asked: Address | None = None
        self._pausing = False  # between two rounds
        self._attempt = 0  # a timer of an earlier attempt is ignored
        self._rounds = 0
        self._turn = 0
        self._failures: dict[Address, str] = {}
        self._nowhere: tuple[str, ...] = ()  # seeds that led to no address, and why
        self._aliases: set[Address] = set()  # seeds that turned out to lead to this node itself
        self._behind: dict[Address, str] = {}  # the name of the member that answered at a seed

    def start(self, now: float) -> list[Effect]:
        """Ask the first seed, or be joined at once when there is no other node to ask."""
        if not self._seeds and not self._resolving:
            self.joined = True
            return [Joined(None)]
        return self._seek(now)

    def resolved(self, addresses: Sequence[Address], nowhere: Sequence[str], now: float) -> list[Effect]:
        """Take over what the seeds lead to now; `nowhere` says which of them led to nothing, and why.

        An answer without any address is no reason to give up, or to begin a run alone: names come to be known later.
        """
        known = set(self._seeds)
        self._seeds = self._others(addresses)[:MAX_SEEDS]
        self._nowhere = tuple(nowhere)
        self._aliases.intersection_update(self._seeds)
        self._behind = {seed: name for seed, name in self._behind.items() if seed in self._seeds}
        effects = self._join_alone() if addresses else []
        fresh = [seed for seed in self._seeds if seed not in known]
        if not self._seeking:
            return effects
        if self._asked is not None or not self._pausing:
            self._rest.extend(seed for seed in fresh if seed not in self._rest)
            return effects if self._asked is not None else [*effects, *self._next(now)]
        self._rest = deque(fresh)
        return [*effects, *(self._next(now) if fresh else [])]

    def review(self, alone: bool, now: float) -> list[Effect]:
        """Go and look for the others if none is left; stop looking once there are some."""
        if not self.joined or not (self._seeds or self._resolving):
            return []
        if alone and not self._seeking:
            return self._seek(now)
        if not alone and self._seeking:
            self._seeking = False
        return []

    def accepted(self, seed: Address, name: str) -> list[Effect]:
        """Take note that `seed` let this node in, and who answered there."""
        self._seeking = False
        if seed in self._seeds:
            self._behind[seed] = name
            self._aliases.discard(seed)
        if self.joined:
            return []
        self.joined = True
        return [Joined(seed)]

    def answered_by_self(self, seed: Address, now: float) -> list[Effect]:
        """Take note that `seed` leads back here. If all do, this node is the first of the run, until more turn up."""
        self._aliases.add(seed)
        return [*self._join_alone(), *self.failed(seed, "is this node itself", now)]

    def failed(self, seed: Address, why: str, now: float) -> list[Effect]:
        """Go on to the next seed; after the last one wait a while, each time longer."""
        if not self._seeking or seed != self._asked:
            return []
        self._asked = None
        self._failures[seed] = why
        return self._next(now)

    def due(self, timer: JoinDue, now: float) -> list[Effect]:
        """Begin the next round, or give up on the seed that does not answer, or on names that are not resolved."""
        if not self._seeking or timer.attempt != self._attempt:
            return []
        if self._asked is not None:
            return self.failed(self._asked, f"no answer in {self._config.join_answer_timeout_s:g} s", now)
        return self._begin_round(now) if self._pausing else self._pause(now)

    def revisit(self, reached: Callable[[Address, str | None], bool]) -> list[Effect]:
        """Ask seeds behind which no live member is known: each may know members that this node lost or never met.

        `reached` says whether a live member has the address, or the name of who answered there last.
        """
        if not self.joined or self._seeking:
            return []
        missing = [
            seed for seed in self._seeds if seed not in self._aliases and not reached(seed, self._behind.get(seed))
        ]
        effects: list[Effect] = [ResolveSeeds()] if self._resolving and (missing or self._nowhere) else []
        count = min(_MAX_REVISITED, len(missing))
        chosen = [missing[(self._turn + index) % len(missing)] for index in range(count)]
        self._turn += count
        return [*effects, *map(AskToJoin, chosen)]

    def _seek(self, now: float) -> list[Effect]:
        self._seeking = True
        self._rounds = 0
        self._failures.clear()
        return self._begin_round(now)

    def _begin_round(self, now: float) -> list[Effect]:
        self._pausing = False
        self._rest = deque(self._seeds)
        effects: list[Effect] = [ResolveSeeds()] if self._resolving else []
        if not self._rest:
            self._set_timer(now + self._config.join_answer_timeout_s)
            return effects
        return [*effects, *self._next(now)]

    def _next(self, now: float) -> list[Effect]:
        """Ask the next seed of this round; after the last one wait for the next round."""
        if not self._rest:
            return self._pause(now)
        self._pausing = False
        self._asked = self._rest.popleft()
        self._set_timer(now + self._config.join_answer_timeout_s)
        return [AskToJoin(self._asked)]

    def _pause(self, now: float) -> list[Effect]:
        ceiling_s = min(self._config.join_backoff_max_s, self._config.join_backoff_min_s * 2.0 ** min(self._rounds, 32))
        wait_s = ceiling_s * self._rng.uniform(0.5, 1.0)
        self._rounds += 1
        self._pausing = True
        self._set_timer(now + wait_s)
        tried = [f"{asked}: {reason}" for asked, reason in self._failures.items() if asked in self._seeds]
        reasons = "; ".join([*tried, *self._nowhere]) or "no address is known yet"
        return [Waiting(f"no seed lets this node in ({reasons}); asking again in {wait_s:.1f} s")]

    def _set_timer(self, due: float) -> None:
        self._attempt += 1
        self._schedule.add(due, JoinDue(self._attempt))

    def _join_alone(self) -> list[Effect]:
        """Begin the run alone once every seed has led back to this node."""
        if self.joined or self._nowhere or not self._aliases.issuperset(self._seeds):
            return []
        self.joined = True
        return [Joined(None)]

    def _others(self, seeds: Sequence[Address]) -> tuple[Address, ...]:
        return tuple(dict.fromkeys(seed for seed in seeds if seed != self._own))

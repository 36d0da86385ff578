"""Draw a schedule of faults at random, and carry it out: crashes, restarts, pauses, cuts, bad links, torn streams."""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence
from dataclasses import dataclass

from adpsgd_node.ids import Address
from adpsgd_node.sim.exchange import ExchangeSimulation
from adpsgd_node.sim.membership import Life, MembershipSimulation
from adpsgd_node.sim.network import Link

__all__ = ["EXCHANGE_FAULTS", "MEMBERSHIP_FAULTS", "FaultKind", "FaultSchedule"]

LONGEST_CUT_S = 20.0
SLOWEST_S = 1.5
"""Longest time that one message of a slow node takes, in seconds."""


class FaultKind(enum.Enum):
    """What can be done to a member."""

    CRASH = "crash"
    """It ends without a word, for good."""
    RESTART = "restart"
    """Its next life starts at once, at its address."""
    MOVE = "move"
    """Its next life starts at once, at a new address."""
    PAUSE = "pause"
    """Its process stands still for a while."""
    PARTITION = "partition"
    """All members are cut in two, for a while."""
    ONE_WAY = "one_way"
    """What it sends to one other is lost, and only that."""
    RETURN = "return"
    """It ends without a word, and its next life starts after a while."""
    REPLACE = "replace"
    """It ends without a word, and another member starts at its address."""
    LEAVE = "leave"
    """It settles what it can, says goodbye and ends."""
    RESET = "reset"
    """All its connections break."""
    SLOW = "slow"
    """All that it sends and is sent takes long."""


MEMBERSHIP_FAULTS = (
    FaultKind.CRASH,
    FaultKind.RESTART,
    FaultKind.MOVE,
    FaultKind.PAUSE,
    FaultKind.PARTITION,
    FaultKind.ONE_WAY,
)

EXCHANGE_FAULTS = tuple(FaultKind)
"""RESET and LEAVE need a simulation of exchanges."""

_FOR_SEEDS_TOO = frozenset(FaultKind) - {FaultKind.CRASH, FaultKind.MOVE, FaultKind.REPLACE, FaultKind.LEAVE}
_ENDING = frozenset({FaultKind.CRASH, FaultKind.LEAVE, FaultKind.RETURN})


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSchedule:
    """What is done to the members, how often, and for how long."""

    seconds: float = 60.0
    """Simulated seconds with faults; at their end everything is mended."""
    interval_s: float = 4.0
    """Mean seconds between two faults."""
    pause_max_s: float = 8.0
    """Longest time a process is stopped, in seconds."""
    loss: float = 0.05
    """Probability that a message is lost, meanwhile and after."""
    kinds: tuple[FaultKind, ...] = MEMBERSHIP_FAULTS
    """What may happen, each as likely as the others."""

    def carry_out(self, simulation: MembershipSimulation, rng: random.Random, seeds: Sequence[str]) -> list[str]:
        """Let the time pass with its faults, mend everything, and return what was done, one line a fault."""
        return _Faults(self, simulation, rng, seeds).run()


class _Faults:
    """One schedule on its way."""

    def __init__(
        self, schedule: FaultSchedule, simulation: MembershipSimulation, rng: random.Random, seeds: Sequence[str]
    ) -> None:
        self._schedule = schedule
        self._simulation = simulation
        self._rng = rng
        self._seeds = seeds
        self._end = simulation.clock.now + schedule.seconds

    def run(self) -> list[str]:
        done: list[str] = []
        simulation, rng = self._simulation, self._rng
        simulation.network.link = Link(loss=self._schedule.loss)
        while True:
            pause_s = rng.expovariate(1.0 / self._schedule.interval_s)
            simulation.clock.run_until(min(self._end, simulation.clock.now + pause_s))
            if simulation.clock.now >= self._end:
                break
            kind = rng.choice(self._schedule.kinds)
            began = simulation.clock.now
            what = f"{kind.value} {self._do(kind)}"
            done.append(f"{began:8.3f} {what}")
            if isinstance(simulation, ExchangeSimulation):
                simulation.note(f"fault: {what}")
        simulation.network.heal()
        for life in simulation.running():
            if life.paused:
                simulation.resume(life)
        return done

    def _do(self, kind: FaultKind) -> str:
        running = self._simulation.running()
        life = self._rng.choice(running)
        seed = life.id.name in self._seeds
        if (seed and kind not in _FOR_SEEDS_TOO) or (kind in _ENDING and len(running) <= len(self._seeds) + 2):
            return f"{life.id}: left out"  # a seed that moved is none any more, and somebody must be left
        match kind:
            case FaultKind.PARTITION:
                return self._cut(running)
            case FaultKind.ONE_WAY:
                return self._deafen(life, self._rng.choice(running))
            case FaultKind.SLOW:
                return self._slow(life, running)
            case FaultKind.PAUSE:
                self._pause(life)
            case FaultKind.RESET | FaultKind.LEAVE:
                self._disturb(kind, life)
            case _:
                self._end_life(kind, life)
        return str(life.id)

    def _end_life(self, kind: FaultKind, life: Life) -> None:
        simulation = self._simulation
        match kind:
            case FaultKind.RESTART:
                simulation.restart(life, self._seeds)
            case FaultKind.MOVE:
                address = Address(f"{life.id.name}-{life.id.boot + 1}:7000")
                simulation.restart(life, self._seeds, address=address)
            case FaultKind.REPLACE:
                simulation.start(f"{life.id.name}x", self._seeds, address=life.address)
            case FaultKind.RETURN:
                simulation.crash(life)
                back = simulation.clock.now + self._rng.uniform(0.5, LONGEST_CUT_S)
                simulation.clock.at(min(back, self._end), simulation.restart, life, self._seeds)
            case _:
                simulation.crash(life)

    def _disturb(self, kind: FaultKind, life: Life) -> None:
        assert isinstance(self._simulation, ExchangeSimulation), f"{kind.value}: this simulation has no exchanges"
        if kind is FaultKind.RESET:
            self._simulation.tear(life)
        else:
            self._simulation.leave(life)

    def _pause(self, life: Life) -> None:
        if not life.paused:
            self._simulation.pause(life)
            stopped_s = self._rng.uniform(0.5, self._schedule.pause_max_s)
            self._simulation.clock.after(stopped_s, _resume, self._simulation, life)

    def _cut(self, running: list[Life]) -> str:
        simulation = self._simulation
        self._rng.shuffle(running)
        cut = self._rng.randrange(1, len(running))
        simulation.partition(running[:cut], running[cut:])
        simulation.clock.after(self._rng.uniform(1.0, LONGEST_CUT_S), simulation.network.heal)
        return f"{cut} of {len(running)}"

    def _deafen(self, life: Life, other: Life) -> str:
        self._simulation.network.set_way(life.address, other.address, Link(loss=1.0))
        return f"{life.id} to {other.id}"

    def _slow(self, life: Life, running: Sequence[Life]) -> str:
        link = Link(loss=self._schedule.loss, delay_min_s=0.02, delay_max_s=self._rng.uniform(0.1, SLOWEST_S))
        for other in running:
            self._simulation.network.set_way(life.address, other.address, link)
            self._simulation.network.set_way(other.address, life.address, link)
        return f"{life.id}, up to {link.delay_max_s:.2f} s a message"


def _resume(simulation: MembershipSimulation, life: Life) -> None:
    if life.running and life.paused:
        simulation.resume(life)

"""Draw a schedule of faults at random, and carry it out: crashes, restarts, pauses, cuts, bad links."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from adpsgd_node.ids import Address
from adpsgd_node.sim.membership import Life, MembershipSimulation
from adpsgd_node.sim.network import Link

__all__ = ["FaultSchedule"]

_KINDS = ("crash", "restart", "move", "pause", "partition", "one_way")


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

    def carry_out(self, simulation: MembershipSimulation, rng: random.Random, seeds: Sequence[str]) -> list[str]:
        """Let the time pass with its faults, mend everything, and return what was done, one line a fault."""
        done: list[str] = []
        end = simulation.clock.now + self.seconds
        simulation.network.link = Link(loss=self.loss)
        while True:
            simulation.clock.run_until(min(end, simulation.clock.now + rng.expovariate(1.0 / self.interval_s)))
            if simulation.clock.now >= end:
                break
            kind = rng.choice(_KINDS)
            done.append(f"{simulation.clock.now:8.3f} {kind} {self._do(kind, simulation, rng, seeds)}")
        simulation.network.heal()
        for life in simulation.running():
            if life.paused:
                simulation.resume(life)
        return done

    def _do(self, kind: str, simulation: MembershipSimulation, rng: random.Random, seeds: Sequence[str]) -> str:
        running = simulation.running()
        life = rng.choice(running)
        match kind:
            case "crash" if life.id.name not in seeds and len(running) > len(seeds) + 2:
                simulation.crash(life)
            case "restart":
                simulation.restart(life, seeds)
            case "move" if life.id.name not in seeds:  # a seed that moved is none any more
                address = Address(f"{life.id.name}-{life.id.boot + 1}:7000")
                simulation.restart(life, seeds, address=address)
            case "pause" if not life.paused:
                simulation.pause(life)
                simulation.clock.after(rng.uniform(0.5, self.pause_max_s), _resume, simulation, life)
            case "partition":
                rng.shuffle(running)
                cut = rng.randrange(1, len(running))
                simulation.partition(running[:cut], running[cut:])
                simulation.clock.after(rng.uniform(1.0, 20.0), simulation.network.heal)
            case "one_way":
                return self._deafen(simulation, rng, life, running)
            case _:
                return f"{life.id}: left out"
        return str(life.id)

    @staticmethod
    def _deafen(simulation: MembershipSimulation, rng: random.Random, life: Life, running: Sequence[Life]) -> str:
        other = rng.choice(running)
        simulation.network.set_way(life.address, other.address, Link(loss=1.0))
        return f"{life.id} to {other.id}"


def _resume(simulation: MembershipSimulation, life: Life) -> None:
    if life.running and life.paused:
        simulation.resume(life)

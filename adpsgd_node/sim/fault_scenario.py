"""Put a training cluster through faults, mend them, and see whether everything is as it should be."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.core.membership import membership_preset
from adpsgd_node.errors import ConfigError
from adpsgd_node.sim.exchange import ExchangeSimulation
from adpsgd_node.sim.fault import EXCHANGE_FAULTS, FaultSchedule
from adpsgd_node.sim.network import Link
from adpsgd_node.sim.node import ExchangeNode
from adpsgd_node.sim.setup import ExchangeSetup
from adpsgd_node.sim.stream import LATEST_REPLAY_S, StreamFaults
from adpsgd_node.sim.verdict import Verdict, judged, quiet

__all__ = ["FaultRun", "FaultScenario"]

SEEDS = 3
MAX_HIDDEN = 3
"""Most nodes of one simulation that can call but not be called."""
JOIN_LIMIT_S = 120.0
"""All nodes must know each other within this time from the start, in simulated seconds."""
CONVERGE_LIMIT_S = 120.0
"""All views must be right within this time after the last fault is mended."""
EXCHANGE_LIMIT_S = 60.0
"""Within this further time every node must complete an exchange of its own."""
QUIET_LIMIT_S = 60.0
"""Once no exchange is started any more, none may run or wait to be settled after this time."""
LOOK_S = 0.5

_TOPOLOGIES = ("complete", "ring", "exponential", "hypercube")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRun:
    """What one seed came to; the same scenario always comes to the same."""

    seed: int
    wrong: tuple[str, ...]
    """What is wrong, one line each; empty: every invariant holds."""
    faults: tuple[str, ...]
    """What was done to the nodes, one line each."""
    converge_s: float | None
    """From the mending of the last fault until all views were right; None: not within the limit."""
    exchanges: int
    """Exchanges that were complete."""
    broken: int
    settled: int
    """Broken exchanges resolved, by the peer's answer or because its memory is gone."""
    mass_drift: int
    """What the parameters of the survivors have in sum too much or too little: 0 is the only right value."""
    stuck: int
    survivors: int
    events: int
    """Events carried out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultScenario:
    """What is to be simulated."""

    nodes: int = 16
    """Nodes that start; three of them are seeds."""
    seconds: float = 30.0
    """Simulated seconds with faults."""
    interval_s: float = 1.5
    """Mean seconds between two faults."""
    loss: float = 0.05
    """Probability that a message is lost, each way of each link; in a stream it is sent again."""
    resets: float = 0.01
    """Probability that a message of a stream tears it, while there are faults."""
    preset: str = "lan"
    """Times of membership: local, lan or wan."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        if self.nodes < SEEDS + 1:
            raise ConfigError(f"{self.nodes} nodes are too few to lose some: give at least {SEEDS + 1}.")
        if not self.seconds > 0:
            raise ConfigError(f"{self.seconds} s of faults cannot be simulated: give a time above 0.")
        if not self.interval_s > 0:
            raise ConfigError(f"a fault every {self.interval_s} s cannot be simulated: give a time above 0.")
        Link(loss=self.loss)
        Link(loss=self.resets)

    def run(
        self, *, node_type: type[ExchangeNode] = ExchangeNode, trace: Callable[[str], None] | None = None
    ) -> FaultRun:
        """Simulate; `node_type` may be one that does something wrong, `trace` takes one line an event."""
        rng = random.Random(f"{self.seed} faults")
        simulation = ExchangeSimulation(
            self.seed,
            membership_preset(self.preset),
            Link(loss=self.loss),
            setup=_drawn(rng),
            node_type=node_type,
            trace=trace,
        )
        faults: list[str] = []
        try:
            faults += self._disturb(simulation, rng)
            wrong, converge_s = self._calm(simulation)
            verdict = judged(simulation)
        except Exception as error:  # whatever a machine trips over is this seed's finding, and the next one is to run
            where = traceback.extract_tb(error.__traceback__)[-1]
            name = where.filename.rpartition("/")[2]
            wrong = [f"{type(error).__name__} at {simulation.clock.now:.3f} s, {name}:{where.lineno}: {error}"]
            converge_s, verdict = None, Verdict(0, (), ())
        return self._summed_up(simulation, tuple(faults), (*wrong, *verdict.wrong), verdict, converge_s)

    def _disturb(self, simulation: ExchangeSimulation, rng: random.Random) -> list[str]:
        """Start the nodes, do what is to be done to them, and mend it."""
        seeds = self._form(simulation, rng)
        simulation.transport.faults = StreamFaults(reset=self.resets, replay=0.25)
        schedule = FaultSchedule(
            seconds=self.seconds,
            interval_s=self.interval_s,
            pause_max_s=20.0,
            loss=self.loss,
            kinds=EXCHANGE_FAULTS,
        )
        done = schedule.carry_out(simulation, rng, seeds)
        simulation.transport.faults = StreamFaults()
        simulation.note("all is mended")
        return done

    def _form(self, simulation: ExchangeSimulation, rng: random.Random) -> list[str]:
        width = len(str(self.nodes - 1))
        names = [f"n{index:0{width}d}" for index in range(self.nodes)]
        seeds = names[:SEEDS]
        hidden = self._hidden(simulation, names[SEEDS + 1 :], rng)
        for name in names:
            simulation.start(name, seeds, outbound_only=name in hidden)
        simulation.run_until_converged(JOIN_LIMIT_S)
        return seeds

    @staticmethod
    def _hidden(simulation: ExchangeSimulation, names: list[str], rng: random.Random) -> list[str]:
        """Draw who cannot be called, in some seeds a few; in a sparse graph one might be among its like only."""
        if simulation.setup.topology != "complete" or len(names) < MAX_HIDDEN:
            return []
        return rng.sample(names, rng.randint(0, MAX_HIDDEN))

    def _calm(self, simulation: ExchangeSimulation) -> tuple[list[str], float | None]:
        """Let everything come right again; return what did not, and when the views were."""
        wrong: list[str] = []
        mended = simulation.clock.now
        converge_s = simulation.run_until_converged(CONVERGE_LIMIT_S, LOOK_S)
        if converge_s is None:
            wrong.append(f"views are wrong {CONVERGE_LIMIT_S:g} s after the last fault: {simulation.describe()}")
        # Until then somebody may call one that crashed, and until then torn streams' last words come in.
        calm = simulation.tally.calm_since = max(simulation.clock.now, mended + LATEST_REPLAY_S)
        idle = _idle_after(simulation, calm)
        wrong += [f"{name} completed no exchange within {EXCHANGE_LIMIT_S:g} s after the faults" for name in idle]
        _end(simulation)
        return wrong, converge_s

    def _summed_up(
        self,
        simulation: ExchangeSimulation,
        faults: tuple[str, ...],
        wrong: tuple[str, ...],
        verdict: Verdict,
        converge_s: float | None,
    ) -> FaultRun:
        tally = simulation.tally
        return FaultRun(
            seed=self.seed,
            wrong=wrong,
            faults=faults,
            converge_s=converge_s,
            exchanges=tally.outcomes[Outcome.COMPLETE],
            broken=tally.outcomes[Outcome.BROKEN],
            settled=sum(tally.settled.values()),
            mass_drift=verdict.drift,
            stuck=len(verdict.stuck),
            survivors=len(simulation.running()),
            events=simulation.clock.events,
        )


def _drawn(rng: random.Random) -> ExchangeSetup:
    """Draw what exchanges are like: every seed tries something else."""
    return ExchangeSetup(
        chunk_count=rng.randint(1, 8),
        window=rng.randint(1, 6),
        max_inbound=rng.randint(1, 2),
        topology=rng.choice(_TOPOLOGIES),
        step_interval_s=rng.choice((0.5, 1.0, 2.0)),
    )


def _idle_after(simulation: ExchangeSimulation, calm: float) -> list[str]:
    """Let time pass until every node has completed an exchange in the `calm`; list those that have not in the end."""
    while True:
        idle = [
            str(p.life.id) for p in simulation.participants() if max(p.gossip.completed_at, p.node.served_at) <= calm
        ]
        if not idle or simulation.clock.now - calm >= EXCHANGE_LIMIT_S:
            return idle
        simulation.clock.run(LOOK_S)


def _end(simulation: ExchangeSimulation) -> None:
    """Start no exchange any more, and let those that run or are unsettled end."""
    for participant in simulation.participants():
        participant.gossip.stop()
    until = simulation.clock.now + QUIET_LIMIT_S
    while not quiet(simulation) and simulation.clock.now < until:
        simulation.clock.run(LOOK_S)

"""Judge a simulation once nothing moves any more: who is wrong, stuck, or holds what nobody gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from adpsgd_node.sim.exchange import ExchangeSimulation, Participant

__all__ = ["Verdict", "judged", "quiet", "stuck"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong; nothing, if all is well."""

    drift: int
    """Sum over chunks and pairs of survivors of what the two halves of their exchanges differ by."""
    stuck: tuple[str, ...]
    """Exchanges that run on, or wait to be settled with a survivor, one line each."""
    wrong: tuple[str, ...]
    """Everything that is wrong, stuck exchanges included, one line each."""


def quiet(simulation: ExchangeSimulation) -> bool:
    """Tell whether no exchange runs and none waits to be settled with a survivor."""
    return not stuck(simulation.participants())


def stuck(participants: Sequence[Participant]) -> list[str]:
    """List the exchanges that run, and those that wait to be settled with one of `participants`."""
    alive = {participant.life.id for participant in participants}
    lines = []
    for participant in participants:
        node = participant.node
        if node.outbound is not None:
            lines.append(f"{node.id} still runs {node.id}/{node.outbound.exchange_id} with {node.outbound.peer}")
        lines += [f"{node.id} still serves {key}" for key in node.inbound]
        lines += [f"{node.id} has not settled with {peer}" for peer in sorted(node.settling.peers & alive)]
        lines += [
            f"the journal of {node.id} waits for {initiator}"
            for initiator in node.journal.initiators()
            if initiator in alive and not any(key.initiator == initiator for key in node.inbound)
        ]
    return lines


def judged(simulation: ExchangeSimulation) -> Verdict:
    """Compare what the survivors hold with what they were given."""
    participants = simulation.participants()
    drift, wrong = _drift(simulation, participants)
    waiting = stuck(participants)
    wrong += waiting
    for participant in participants:
        if not participant.node.replica.accounted():
            wrong.append(f"the values of {participant.life.id} are not what its steps and exchanges add up to")
        if participant.process.ends and participant.node.outbound is None and not participant.node.inbound:
            wrong.append(f"{participant.life.id} holds {len(participant.process.ends)} streams that nobody serves")
    if simulation.transport.dialed:
        wrong.append(f"members that cannot be called were called {simulation.transport.dialed} times")
    tally = simulation.tally
    if tally.waited:
        wrong.append(f"in the calm, {tally.waited} exchanges waited in vain for the other side")
    open_ = tally.started - sum(tally.outcomes.values()) - tally.cut_short
    if open_ != sum(participant.node.outbound is not None for participant in participants):
        wrong.append(f"{open_} exchanges began and neither ended nor run")
    return Verdict(drift, tuple(waiting), tuple(wrong))


def _drift(simulation: ExchangeSimulation, participants: Sequence[Participant]) -> tuple[int, list[str]]:
    drift, wrong = 0, []
    leavers = simulation.left.values()
    pairs = [(leaver.participant, p) for leaver in leavers for p in participants if p.life.id in leaver.settled_with]
    for one, other in (*combinations(participants, 2), *pairs):
        pair = frozenset((one.life.id, other.life.id))
        given = one.node.replica.exchanged_with(other.life.id)
        taken = other.node.replica.exchanged_with(one.life.id)
        difference = sum(abs(a + b) for a, b in zip(given, taken, strict=True))
        if difference and pair not in simulation.tally.evicted:
            drift += difference
            wrong.append(f"{one.life.id} and {other.life.id} differ by {difference} in what they exchanged")
    return drift, wrong

"""Run membership and exchanges of a whole cluster on one virtual clock: streams that break, processes that stop."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from adpsgd_node.core.membership import Member, MembershipConfig, Phase
from adpsgd_node.core.membership.effect import Effect, Joined, MemberChanged
from adpsgd_node.core.membership.event import Leave, PhaseChanged
from adpsgd_node.core.membership.member import MemberState
from adpsgd_node.ids import Address, NodeId
from adpsgd_node.sim.gossip import Gossip
from adpsgd_node.sim.membership import Life, MembershipSimulation
from adpsgd_node.sim.network import Link
from adpsgd_node.sim.node import ExchangeNode
from adpsgd_node.sim.process import Process
from adpsgd_node.sim.setup import ExchangeSetup
from adpsgd_node.sim.tally import Tally
from adpsgd_node.sim.transport import Transport

__all__ = ["ExchangeSimulation", "Leaver", "Participant"]

PREPARING_MAX_S = 1.0
"""Longest time from joining to the first step, in seconds: the script loads, and adopts a model."""
DRAIN_LIMIT_S = 10.0
"""A node that leaves waits so long for its exchanges to settle, in seconds."""
DRAIN_LOOK_S = 0.1
LINGER_S = 0.5
"""A node that has left answers for so long, in seconds; then its process ends."""


@dataclass(frozen=True, slots=True)
class Participant:
    """One life with all that it runs."""

    life: Life
    process: Process
    node: ExchangeNode
    gossip: Gossip


@dataclass(frozen=True, slots=True)
class Leaver:
    """Somebody who has left, and whom it held live then: with these, everything was settled."""

    participant: Participant
    settled_with: frozenset[NodeId]


class ExchangeSimulation(MembershipSimulation):
    """A deterministic cluster that trains: whole numbers for parameters, the real machines for all else."""

    def __init__(
        self,
        seed: int = 0,
        config: MembershipConfig | None = None,
        link: Link | None = None,
        *,
        setup: ExchangeSetup | None = None,
        node_type: type[ExchangeNode] = ExchangeNode,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(seed, config, link)
        self.setup = setup or ExchangeSetup()
        self.tally = Tally()
        self.transport = Transport(self.clock, self.network, random.Random(f"{seed} streams"), self._process_at)
        self._node_type = node_type
        self._trace = trace
        self._participants: dict[NodeId, Participant] = {}
        self.left: dict[NodeId, Leaver] = {}
        """Who left with everything settled."""
        self._rng = random.Random(f"{seed} processes")

    def of(self, life: Life) -> Participant:
        """Return what a life runs."""
        participant = self._participants.get(life.id)
        if participant is None:
            participant = self._participants[life.id] = self._participate(life)
        return participant

    def participants(self) -> list[Participant]:
        """Return what the running lives run."""
        return [self.of(life) for life in self.running()]

    def note(self, text: str) -> None:
        """Write a line of the transcript, if one is written."""
        if self._trace is not None:
            self._trace(f"{self.clock.now:.3f} {text}")

    def crash(self, life: Life) -> None:
        super().crash(life)
        vanish = self._rng.random() < 0.5
        self.note(f"{life.id} ends" + (", and its machine with it" if vanish else ""))
        participant = self.of(life)
        self.transport.crash(participant.process, vanish=vanish)
        self.tally.cut_short += participant.node.outbound is not None

    def pause(self, life: Life) -> None:
        super().pause(life)
        self.note(f"{life.id} is stopped")

    def resume(self, life: Life) -> None:
        process = self.of(life).process
        self.note(f"{life.id} goes on")
        if self._rng.random() < 0.5:  # its timers may come before what it has not read, or after
            life.paused = False
            process.ring_late()
        super().resume(life)
        process.ring_late()

    def partition(self, *sides: Sequence[Life]) -> None:
        super().partition(*sides)
        self.note("cut apart: " + " | ".join(" ".join(str(life.id) for life in side) for side in sides))

    def tear(self, life: Life) -> None:
        """Reset every connection of a process."""
        count = self.transport.tear(self.of(life).process)
        self.note(f"{life.id} loses {count} streams")

    def leave(self, life: Life) -> None:
        """Let a node end on purpose: accept nothing more, settle, say goodbye, end."""
        participant = self.of(life)
        if not participant.node.stopping:
            self.note(f"{life.id} drains")
            participant.node.stopping = True
            participant.gossip.stop()
            self._drain(participant, self.clock.now + DRAIN_LIMIT_S)

    def heard(self, life: Life, effect: Effect) -> None:
        match effect:
            case MemberChanged(member, before):
                self._member_changed(self.of(life), member, before)
            case Joined():
                self._joined(self.of(life))
            case _:
                pass

    def _participate(self, life: Life) -> Participant:
        self.note(f"{life.id} starts at {life.address}")
        process = Process(life, self.clock)
        rng = random.Random(f"{self.seed} {life.id} exchanges")
        address_of = partial(_address_of, life)
        trace = None if self._trace is None else self.note
        node = self._node_type(process, self.transport, self.setup, self.tally, rng, address_of, trace)
        return Participant(life, process, node, Gossip(node, rng))

    def _process_at(self, address: Address) -> Process | None:
        life = self.life_at(address)
        return None if life is None else self.of(life).process

    def _joined(self, participant: Participant) -> None:
        if participant.life.swim.self_member.phase is Phase.JOINING:
            participant.process.after(self._rng.uniform(0.0, PREPARING_MAX_S), self._train, participant)

    def _train(self, participant: Participant) -> None:
        own = participant.life.swim.self_member
        if own.phase is Phase.JOINING and own.live:
            participant.node.ready = True
            self.tell(participant.life, PhaseChanged(Phase.TRAINING))
            participant.gossip.members_changed()
            participant.gossip.begin()

    def _member_changed(self, participant: Participant, member: Member, before: Member | None) -> None:
        if before is None or (before.id, before.state) != (member.id, member.state):
            self.note(f"{participant.life.id} holds {member.id} {member.state.name.lower()}")
        if before is not None and before.id != member.id:
            participant.node.peer_over(before.id)
        if member.live:
            self._joined(participant)
        elif member.state is MemberState.LEFT:
            participant.node.peer_over(member.id)
        else:
            participant.node.peer_dead(member.id)
        participant.gossip.members_changed()

    def _drain(self, participant: Participant, until: float) -> None:
        node, life = participant.node, participant.life
        clean = not node.busy and not node.awaited()
        if not clean and self.clock.now < until:
            participant.process.after(DRAIN_LOOK_S, self._drain, participant, until)
            return
        self.note(f"{life.id} leaves")
        if clean:
            self.left[life.id] = Leaver(participant, frozenset(member.id for member in life.swim.live()))
        self.tell(life, Leave())
        participant.process.after(LINGER_S, self.crash, life)


def _address_of(life: Life, node: NodeId) -> Address | None:
    return next((member.address for member in life.swim.live() if member.id == node), None)

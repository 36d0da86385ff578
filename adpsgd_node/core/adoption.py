"""Decide where a node's first parameters come from: a peer's live model, a checkpoint, its own, or wait for another.

Every node that has announced its model asks all live peers directly. Whoever finds a live model adopts it, though it
may have a checkpoint. When nobody has one, the newest checkpoint among the nodes is the run's: its holder begins with
it, the others wait and adopt it from there. Without any checkpoint the node with the smallest name among those asking
founds the run with its own initial parameters. A node asks only after it has begun to answer, so of two that ask each
other at least one sees the other; and who has been asked, since it got its answers, by one that had not begun then,
asks once more: there is one founder among nodes that know of each other. A live peer that does not answer may hold the
model, or be founding: it is waited for until it answers or membership finds it dead.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from adpsgd_node.core.membership.member import Phase
from adpsgd_node.ids import NodeId

__all__ = ["Adopt", "Asker", "Found", "Offer", "Standing", "Wait", "decide"]

STARTING = frozenset({Phase.JOINING, Phase.IDLE, Phase.INITIALIZING})
"""Phases of a node that has no model yet, and may come to found the run."""


@dataclass(frozen=True, slots=True, order=True)
class Standing:
    """How far the run was when a checkpoint was written; the larger one is the newer."""

    samples: int
    steps: int


@dataclass(frozen=True, slots=True)
class Offer:
    """A live peer's answer."""

    node: NodeId
    phase: Phase
    has_model: bool
    checkpoint: Standing | None = None
    """Of its newest checkpoint of this run; None when it has none, or has a live model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """The node that asks."""

    node: NodeId
    checkpoint: Standing | None = None
    missing: tuple[str, ...] = ()
    """Members that the own checkpoint names and that have not shown up: they may hold a newer one."""
    patient: bool = True
    """There is still time to wait for these, and for holders of a newer checkpoint whose script is not there yet."""
    outbound_only: bool = False
    """Nobody could fetch what it began with: it leaves that to the others as long as one of them lives."""
    out_of_reach: tuple[NodeId, ...] = ()
    """Live members that hold the model, and that nobody can call to fetch it."""
    samples_elsewhere: int = 0
    """Of the run, taken by other nodes: somebody held the model, and may hold it yet where this node does not see."""


@dataclass(frozen=True, slots=True)
class Adopt:
    donors: tuple[NodeId, ...]
    """All that have a model, in random order."""


@dataclass(frozen=True, slots=True)
class Found:
    """Begin the run: with the own checkpoint, or with the own initial parameters."""

    from_checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    whom: str
    why: str


def decide(own: Asker, offers: Sequence[Offer], silent: Sequence[NodeId], rng: random.Random) -> Adopt | Found | Wait:
    """Choose, given the answers of the live peers and those that did not answer."""
    holding = [offer for offer in offers if offer.has_model and offer.phase is not Phase.POISONED]
    donors = [offer.node for offer in holding if offer.phase is not Phase.DRAINING]
    if donors:
        return Adopt(tuple(rng.sample(donors, len(donors))))
    if silent:
        return Wait(str(min(silent)), "it does not answer, and may hold the model")
    if holding:
        return Wait(str(min(offer.node for offer in holding)), "it holds the model, and is leaving")
    if own.outbound_only and offers:
        return Wait(str(min(offer.node for offer in offers)), "this node is outbound-only: the others begin the run")
    holders = {
        offer.node: offer.checkpoint
        for offer in offers
        if offer.checkpoint is not None
        and (offer.phase in (Phase.INITIALIZING, Phase.JOINING) or (own.patient and offer.phase in STARTING))
    }
    if own.checkpoint is not None:
        holders[own.node] = own.checkpoint
    if holders:
        return _newest(own, holders)
    if own.out_of_reach:  # to begin anew would undo what they have learnt: the models would be averaged
        return Wait(str(min(own.out_of_reach)), "it holds the model, and nobody can call it: restart it to begin anew")
    joining = [offer.node for offer in offers if offer.phase is Phase.JOINING]
    if joining and own.patient:  # it let this node in, and may yet find the run that it belonged to
        return Wait(str(min(joining)), "it looks for the run")
    if own.samples_elsewhere and own.patient:
        return Wait("the nodes that were there", f"they took {own.samples_elsewhere} samples, and may only be cut off")
    founder = min([own.node, *(offer.node for offer in offers if offer.phase is Phase.INITIALIZING)])
    return Found() if founder == own.node else Wait(str(founder), "it begins the run with its own")


def _newest(own: Asker, holders: dict[NodeId, Standing]) -> Found | Wait:
    """Let the holder of the newest checkpoint begin: the most samples, then steps, then the smallest name."""
    newest = max(holders.values())
    holder = min(node for node, standing in holders.items() if standing == newest)
    if holder != own.node:
        return Wait(str(holder), f"its checkpoint is the newest known, of {newest.samples} samples of the run")
    if own.missing and own.patient:
        return Wait(min(own.missing), "this node's checkpoint names it; it may hold a newer one")
    return Found(from_checkpoint=True)

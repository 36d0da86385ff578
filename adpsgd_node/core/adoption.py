"""Decide where a node's first parameters come from: a peer's model, its own, or wait for the founder.

Every node that has announced its model asks all live peers directly. Whoever finds a model adopts it. When nobody has
one, the node with the smallest name among those asking founds the run with its own initial parameters. A node asks only
after it has begun to answer, so of two that ask each other at least one sees the other: there is one founder among
nodes that know of each other. A live peer that does not answer may hold the model, or be founding: it is waited for
until it answers or membership finds it dead.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from adpsgd_node.core.membership.member import Phase
from adpsgd_node.ids import NodeId

__all__ = ["Adopt", "Found", "Offer", "Wait", "decide"]


@dataclass(frozen=True, slots=True)
class Offer:
    """A live peer's answer."""

    node: NodeId
    phase: Phase
    has_model: bool


@dataclass(frozen=True, slots=True)
class Adopt:
    donor: NodeId


@dataclass(frozen=True, slots=True)
class Found:
    """Begin with the own initial parameters."""


@dataclass(frozen=True, slots=True)
class Wait:
    whom: NodeId
    why: str


def decide(own: NodeId, offers: Sequence[Offer], silent: Sequence[NodeId], rng: random.Random) -> Adopt | Found | Wait:
    """Choose, given the answers of the live peers and those that did not answer."""
    donors = [offer.node for offer in offers if offer.has_model and offer.phase is not Phase.POISONED]
    if donors:
        return Adopt(rng.choice(donors))
    if silent:
        return Wait(min(silent), "it does not answer, and may hold the model")
    founder = min([own, *(offer.node for offer in offers if offer.phase is Phase.INITIALIZING)])
    return Found() if founder == own else Wait(founder, "it begins the run with its own")

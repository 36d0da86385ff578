"""Decide whether an `Open` is accepted: identity, run, schema, readiness, bounds (invariant 4)."""

from __future__ import annotations

from dataclasses import dataclass

from adpsgd_node.core.exchange.frame import Decline, DeclineReason, Open
from adpsgd_node.ids import PROTOCOL_VERSION, NodeId, RunId, SchemaHash

__all__ = ["HANDSHAKE_REASONS", "Terms", "judge"]

HANDSHAKE_REASONS = frozenset({DeclineReason.RUN, DeclineReason.PROTOCOL, DeclineReason.SCHEMA, DeclineReason.IDENTITY})
"""Reasons that time alone does not mend: both sides log them once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What this node requires of an exchange, and how busy it is."""

    self_id: NodeId
    run_id: RunId
    schema: SchemaHash | None
    """None until the trainer has announced its model."""
    chunk_bytes: int
    chunk_count: int
    ready: bool
    poisoned: bool
    stopping: bool
    inbound: int
    max_inbound: int


def judge(
    open_: Open, terms: Terms, *, barred: bool, unsettled: bool, journal_full: bool, quarantine: str = ""
) -> Decline | None:
    """Return why `open_` is declined, or None to accept it.

    `barred`: the id has ended already. `unsettled`: an earlier exchange of this initiator's boot has not ended.
    `quarantine`: why nothing is exchanged with this initiator for now; empty: all is well.
    """
    decline = _handshake(open_, terms)
    if decline is None and quarantine:
        return Decline(DeclineReason.QUARANTINED, quarantine)
    return decline or _state(open_, terms, barred=barred, unsettled=unsettled, full=journal_full)


def _handshake(open_: Open, terms: Terms) -> Decline | None:
    if open_.protocol != PROTOCOL_VERSION:
        return Decline(
            DeclineReason.PROTOCOL,
            f"protocol {PROTOCOL_VERSION} expected, {open_.protocol} came: upgrade the older node",
        )
    if open_.run_id != terms.run_id:
        return Decline(
            DeclineReason.RUN, f"run {terms.run_id!r} expected, {open_.run_id!r} came: check --run and --seeds"
        )
    if open_.responder != terms.self_id:
        return Decline(DeclineReason.IDENTITY, f"this is {terms.self_id}, the call was meant for {open_.responder}")
    if open_.initiator.name == terms.self_id.name:
        return Decline(DeclineReason.IDENTITY, f"{open_.initiator} has this node's own name: choose another --name")
    if terms.schema is None:
        return Decline(DeclineReason.NOT_READY, "no trainer has attached yet")
    if open_.schema != terms.schema:
        detail = f"schema {terms.schema.hex()[:12]} expected, {open_.schema.hex()[:12]} came: the models differ"
        return Decline(DeclineReason.SCHEMA, detail)
    if (open_.chunk_bytes, open_.chunk_count) != (terms.chunk_bytes, terms.chunk_count):
        detail = (
            f"{terms.chunk_count} chunks of {terms.chunk_bytes} bytes expected, "
            f"{open_.chunk_count} of {open_.chunk_bytes} came: set the same --chunk-bytes on every node"
        )
        return Decline(DeclineReason.SCHEMA, detail)
    return None


def _state(open_: Open, terms: Terms, *, barred: bool, unsettled: bool, full: bool) -> Decline | None:
    if barred:
        return Decline(DeclineReason.SETTLED, f"exchange {open_.exchange_id} has ended already")
    if terms.stopping:
        return Decline(DeclineReason.STOPPING)
    if terms.poisoned:
        return Decline(DeclineReason.POISONED, "this node's own parameters or loss are not finite")
    if not terms.ready:
        return Decline(DeclineReason.NOT_READY, "no model yet")
    if unsettled:
        return Decline(DeclineReason.BUSY, "an earlier exchange with this initiator is not settled yet")
    if full or terms.inbound >= terms.max_inbound:
        return Decline(DeclineReason.BUSY, f"{terms.inbound} inbound exchanges are running")
    return None

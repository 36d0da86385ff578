"""Decide whether a node that asks to join is let in."""

from __future__ import annotations

from adpsgd_node.core.membership.member import Member, MemberState
from adpsgd_node.core.membership.packet import JoinRequest, Packet, Refusal, RefusalReason
from adpsgd_node.core.membership.roster import Identity, Roster

__all__ = ["admission", "mismatch"]


def mismatch(message: JoinRequest | Packet, identity: Identity) -> Refusal | None:
    """Say why `message` does not belong to this node's run; None when it does."""
    if message.protocol != identity.protocol:
        return Refusal(
            RefusalReason.PROTOCOL,
            f"{identity.id.name} speaks protocol {identity.protocol}, {message.source.name} speaks {message.protocol}: "
            "run the same version of adpsgd-node on both.",
        )
    if message.run_id != identity.run_id:
        return Refusal(
            RefusalReason.RUN,
            f"{identity.id.name} belongs to run {identity.run_id!r}, {message.source.name} to run {message.run_id!r}: "
            "give both the same run id, or other seeds.",
        )
    return None


def admission(request: JoinRequest, roster: Roster) -> tuple[Refusal | None, Member | None]:
    """Return why the join is refused (None: it is not), and who holds the name if that is why.

    A live holder is never superseded on a stranger's word: the name is free once the holder is dead or has left. The
    same address with a larger boot is a node restarted in place, which proves its earlier life dead.
    """
    wrong = mismatch(request, roster.identity)
    if wrong is not None:
        return wrong, None
    if roster.own.state is MemberState.LEFT:
        return Refusal(RefusalReason.FULL, f"{roster.identity.id.name} is leaving the run: ask another seed."), None
    source = request.source
    holder = roster.own if source.name == roster.own.name else roster.table.get(source.name)
    if holder is not None and (source.id, source.address) == (holder.id, holder.address):
        return None, None
    if holder is not None and holder.address != source.address and (holder.live or holder.id == source.id):
        return Refusal(RefusalReason.NAME_IN_USE, _held(source, holder, here=holder is roster.own)), holder
    if holder is not None and source.id.boot < holder.id.boot:
        detail = (
            f"a later life of {source.name!r} is known, {holder}, than the one that asks, {source.id}: "
            "its boot number went back; start it again with a larger one."
        )
        return Refusal(RefusalReason.NAME_IN_USE, detail), holder
    if roster.table.full and not (holder is not None and holder.live):
        detail = f"the run has its {roster.live_count} members already: raise membership.max_members on every node."
        return Refusal(RefusalReason.FULL, detail), None
    return None, None


def _held(source: Member, holder: Member, *, here: bool) -> str:
    held = f"the name {source.name!r} is held by {holder}"
    if here or source.id.boot <= holder.id.boot:
        return f"{held}: start this node under another name."
    return (
        f"{held}: if that was an earlier life of this node, it will soon be found dead, and this one let in; "
        "otherwise start this node under another name."
    )

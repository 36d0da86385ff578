"""Write a status as plain values: what `adpsgd-node status --json` and `/status` show."""

from __future__ import annotations

import math

from adpsgd_node.core.membership.member import Member
from adpsgd_node.setting import choice
from adpsgd_node.wire.admin import Status

__all__ = ["to_json"]


def to_json(status: Status) -> dict[str, object]:
    """Write a status as plain values; what is not known yet is null."""
    own = status.self_member
    return {
        "run": status.run_id,
        "node": own.id.name,
        **_member_json(own),
        "version": status.version,
        "insecure": status.insecure,
        "algorithm": status.algorithm,
        "topology": status.topology,
        "codec": status.codec,
        "uptime_s": round(status.uptime_s, 3),
        "step": status.step,
        "samples": status.samples,
        "samples_per_s": _finite(status.samples_per_s),
        "loss": _finite(status.loss),
        "accuracy": _finite(status.accuracy),
        "exchanges_initiated": status.exchanges_initiated,
        "exchanges_responded": status.exchanges_responded,
        "consensus_distance": _finite(status.consensus_distance),
        "steps_total": status.steps_total,
        "samples_total": status.samples_total,
        "samples_target": status.samples_target or None,
        "unsettled": status.unsettled,
        "problem": status.problem or None,
        "http": status.http_address,
        "trainer_pid": status.trainer_pid or None,
        "trainer_restarts": status.trainer_restarts,
        "output": status.output,
        "checkpoint": status.checkpoint or None,
        "checkpoint_age_s": _finite(status.checkpoint_age_s),
        "members": [
            {
                "name": entry.member.id.name,
                **_member_json(entry.member),
                "steps": entry.steps,
                "samples": entry.samples,
                "neighbor": entry.neighbor,
                "quarantine": entry.quarantine or None,
            }
            for entry in status.members
        ],
    }


def _finite(value: float) -> float | None:
    """JSON has no NaN: not known is null."""
    return value if math.isfinite(value) else None


def _member_json(member: Member) -> dict[str, object]:
    return {
        "boot": member.id.boot,
        "address": member.address,
        "incarnation": member.incarnation,
        "state": choice(member.state),
        "phase": choice(member.phase),
        "outbound_only": member.outbound_only,
    }

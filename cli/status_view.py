"""Turn a status into a table for people."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from adpsgd_node.core.membership.member import MemberState
from adpsgd_node.setting import choice
from adpsgd_node.wire.admin import Status

__all__ = ["number", "to_table"]

_COLORS = {MemberState.ALIVE: "green", MemberState.SUSPECT: "yellow", MemberState.DEAD: "red", MemberState.LEFT: "dim"}


def to_table(status: Status) -> RenderableType:
    """Lay a status out: lines on the node itself, then the members of its run."""
    members = Table(title=None, header_style="bold")
    for name in ("member", "state", "phase", "steps", "samples", "address", "neighbor"):
        members.add_column(name, justify="right" if name in ("steps", "samples") else "left")
    for entry in sorted(status.members, key=lambda entry: entry.member.id):
        member = entry.member
        own = member.id == status.self_member.id
        members.add_row(
            f"{member.id.name} (asked)" if own else member.id.name,
            Text(choice(member.state), style=_COLORS[member.state]),
            choice(member.phase),
            str(entry.steps),
            str(entry.samples),
            "outbound-only" if member.outbound_only else member.address,
            "yes" if entry.neighbor else "",
        )
    return Group(*_header(status), members)


def number(value: float, digits: int = 4) -> str:
    """Write a number shortly, `-` when it is not known."""
    return f"{value:.{digits}g}" if math.isfinite(value) else "-"


def _header(status: Status) -> list[Text]:
    own = status.self_member
    lines = [
        Text(f"run {status.run_id}, node {own.id.name}: {choice(own.phase)} at {own.address}", style="bold"),
        Text(
            f"step {status.step}, {number(status.samples_per_s)} samples/s, loss {number(status.loss)}, "
            f"accuracy {number(status.accuracy)}, consensus distance {number(status.consensus_distance, 3)}"
        ),
        Text(f"the run: {_target(status)}, {status.steps_total} steps"),
        Text(
            f"{status.algorithm}, {status.topology}, {status.codec}; exchanges {status.exchanges_initiated} initiated, "
            f"{status.exchanges_responded} answered, {status.unsettled} unsettled; "
            f"trainer restarts {status.trainer_restarts}"
        ),
    ]
    if status.checkpoint:
        lines.append(Text(f"checkpoint {status.checkpoint}, {number(status.checkpoint_age_s, 3)} s ago"))
    kept_away = {entry.member.id.name: entry.quarantine for entry in status.members if entry.quarantine}
    lines += [Text(f"exchanges nothing with {name} for now: {why}", style="yellow") for name, why in kept_away.items()]
    if status.insecure:
        lines.append(Text("INSECURE: traffic between nodes is neither encrypted nor authenticated", style="bold red"))
    if status.problem:
        lines.append(Text(f"problem: {status.problem}", style="bold red"))
    return lines


def _target(status: Status) -> str:
    if not status.samples_target:
        return f"{status.samples_total} samples, no target"
    share = min(1.0, status.samples_total / status.samples_target)
    return f"{status.samples_total} of {status.samples_target} samples ({share:.0%})"

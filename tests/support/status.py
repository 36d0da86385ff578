"""A status with a value of its own in every field."""

from __future__ import annotations

from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.ids import Address, NodeId, RunId
from adpsgd_node.wire.admin import MemberStatus, Status

__all__ = ["example_status"]


def example_status(name: str = "node-0", run: str = "demo") -> Status:
    own = Member(NodeId(name, 17), Address("127.0.0.1:7400"), 2, MemberState.ALIVE, Phase.TRAINING)
    peer = Member(NodeId("node-9", 18), Address("127.0.0.1:7401"), 1, MemberState.SUSPECT, Phase.SETTLING)
    return Status(
        self_member=own,
        run_id=RunId(run),
        version="0.1.0",
        insecure=True,
        algorithm="ad-psgd",
        topology="ring",
        codec="bf16",
        uptime_s=12.5,
        step=100,
        samples=3200,
        samples_per_s=812.5,
        loss=0.25,
        accuracy=0.75,
        exchanges_initiated=90,
        exchanges_responded=80,
        consensus_distance=0.001,
        steps_total=200,
        samples_total=6400,
        samples_target=12800,
        unsettled=1,
        problem="clock stands still",
        members=(MemberStatus(own, 100, 3200, False), MemberStatus(peer, 90, 2880, True, "norm jump")),
        http_address="127.0.0.1:8400",
        trainer_pid=4711,
        trainer_restarts=1,
        output="/somewhere/out",
        checkpoint="/somewhere/out/checkpoints/000004",
        checkpoint_age_s=31.5,
    )

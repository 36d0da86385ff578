"""Find out who takes part in the run, and who no longer does: SWIM as a pure machine."""

from adpsgd_node.core.membership.config import PRESETS, MembershipConfig, membership_preset
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.membership.packet import JoinRequest, JoinResponse, Packet, Refusal, RefusalReason
from adpsgd_node.core.membership.roster import Identity
from adpsgd_node.core.membership.swim import Swim

__all__ = [
    "PRESETS",
    "Identity",
    "JoinRequest",
    "JoinResponse",
    "Member",
    "MemberState",
    "MembershipConfig",
    "Packet",
    "Phase",
    "Refusal",
    "RefusalReason",
    "Swim",
    "membership_preset",
]

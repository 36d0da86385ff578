"""Run the real machines of the control plane in virtual time: seeded, replayable, thousands of members on one core."""

from adpsgd_node.sim.clock import Clock
from adpsgd_node.sim.fault import FaultSchedule
from adpsgd_node.sim.membership import Life, MembershipSimulation
from adpsgd_node.sim.network import Link, Network
from adpsgd_node.sim.report import MembershipReport
from adpsgd_node.sim.scenario import MembershipScenario

__all__ = [
    "Clock",
    "FaultSchedule",
    "Life",
    "Link",
    "MembershipReport",
    "MembershipScenario",
    "MembershipSimulation",
    "Network",
]

"""Run the real machines of nodes in virtual time: seeded, replayable, thousands of members on one core."""

from adpsgd_node.sim.campaign import Campaign, CampaignReport
from adpsgd_node.sim.clock import Clock
from adpsgd_node.sim.exchange import ExchangeSimulation
from adpsgd_node.sim.fault import EXCHANGE_FAULTS, FaultKind, FaultSchedule
from adpsgd_node.sim.fault_scenario import FaultRun, FaultScenario
from adpsgd_node.sim.membership import Life, MembershipSimulation
from adpsgd_node.sim.network import Link, Network
from adpsgd_node.sim.node import ExchangeNode
from adpsgd_node.sim.report import MembershipReport
from adpsgd_node.sim.scenario import MembershipScenario
from adpsgd_node.sim.setup import ExchangeSetup
from adpsgd_node.sim.transcript import scenario_of, transcribed

__all__ = [
    "EXCHANGE_FAULTS",
    "Campaign",
    "CampaignReport",
    "Clock",
    "ExchangeNode",
    "ExchangeSetup",
    "ExchangeSimulation",
    "FaultKind",
    "FaultRun",
    "FaultScenario",
    "FaultSchedule",
    "Life",
    "Link",
    "MembershipReport",
    "MembershipScenario",
    "MembershipSimulation",
    "Network",
    "scenario_of",
    "transcribed",
]

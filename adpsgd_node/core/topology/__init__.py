"""Say who exchanges with whom, from nothing but the sorted live members."""

from adpsgd_node.core.topology.choice import TOPOLOGIES, topology_named
from adpsgd_node.core.topology.contract import Topology
from adpsgd_node.core.topology.measure import diameter, diameter_bound, metropolis_weights

__all__ = ["TOPOLOGIES", "Topology", "diameter", "diameter_bound", "metropolis_weights", "topology_named"]

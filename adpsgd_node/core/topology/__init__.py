"""Say who exchanges with whom, from nothing but the sorted live members."""

from adpsgd_node.core.topology.bipartite import Split, split
from adpsgd_node.core.topology.choice import TOPOLOGIES, topology_named
from adpsgd_node.core.topology.contract import Topology
from adpsgd_node.core.topology.measure import diameter, diameter_bound
from adpsgd_node.core.topology.mixing import metropolis_weight, metropolis_weights
from adpsgd_node.core.topology.reach import Reach, reach

__all__ = [
    "TOPOLOGIES",
    "Reach",
    "Split",
    "Topology",
    "diameter",
    "diameter_bound",
    "metropolis_weight",
    "metropolis_weights",
    "reach",
    "split",
    "topology_named",
]

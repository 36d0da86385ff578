"""Choose a topology by the name a user gives."""

from __future__ import annotations

from adpsgd_node.core.topology.complete import Complete
from adpsgd_node.core.topology.contract import Topology
from adpsgd_node.core.topology.custom import Custom
from adpsgd_node.core.topology.exponential import Exponential
from adpsgd_node.core.topology.hypercube import Hypercube
from adpsgd_node.core.topology.ring import Ring
from adpsgd_node.errors import ConfigError

__all__ = ["TOPOLOGIES", "topology_named"]

_PLACED: dict[str, type[Complete | Exponential | Hypercube | Ring]] = {
    kind.name: kind for kind in (Complete, Exponential, Hypercube, Ring)
}

TOPOLOGIES: tuple[str, ...] = (*_PLACED, Custom.name)
"""The names `topology_named` knows."""


def topology_named(name: str, edges: str | None = None) -> Topology:
    """Make the topology called `name`; `custom` takes its edges from `edges`, written `a:b,b:c`.

    Raises `ConfigError` naming the known ones, or what is wrong with the edges.
    """
    if name == Custom.name:
        if not edges:
            raise ConfigError("the custom topology needs an edge list: write it as a:b,b:c.")
        return Custom(edges)
    if name not in _PLACED:
        raise ConfigError(f"unknown topology {name!r}: choose one of {', '.join(TOPOLOGIES)}.")
    if edges:
        raise ConfigError(f"the {name} topology takes no edge list: leave it out, or choose custom.")
    return _PLACED[name]()

"""Say how strong the momentum of A2CiD2 is to be at a node, from the topology over the live members."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from adpsgd_node.core.topology import Topology
from adpsgd_node.core.topology.acceleration import constants, exchange_rates

__all__ = ["MAX_ACCELERATED", "PLAIN", "Momentum", "momentum_at"]

MAX_ACCELERATED = 512
"""Members up to which there is momentum: its constants take eigenvalues, 50 ms of the event loop for so many."""

CONNECTED = 1e-9
"""lambda_2 above which a graph hangs together."""


@dataclass(frozen=True, slots=True)
class Momentum:
    """What the trainer is told. The unit of time is that in which every node starts one exchange."""

    mixing_rate: float
    momentum_share: float
    exchanges_per_unit: float
    """Exchanges of this node, in either role, in a unit of time: by them its trainer tells how much time has passed."""


PLAIN = Momentum(0.0, 1.0, 0.0)
"""No momentum: the node is alone, or the graph does not hang together, or it is too large."""


def momentum_at(topology: Topology, names: Sequence[str], own: str, outbound_only: Collection[str]) -> Momentum:
    """Return the momentum of `own`; `names` are the sorted live members that hold the model."""
    if own not in names or not 2 <= len(names) <= MAX_ACCELERATED:
        return PLAIN
    rates = exchange_rates(topology, names, outbound_only)
    place = {name: index for index, name in enumerate(names)}
    laplacian = np.zeros((len(names), len(names)))
    for (one, other), rate in rates.items():
        both = [place[one], place[other]]
        laplacian[both, both] += rate
        laplacian[both, both[::-1]] -= rate
    connectivity = float(np.linalg.eigvalsh(laplacian)[1])
    if connectivity < CONNECTED:
        return PLAIN
    inverse = np.linalg.pinv(laplacian, hermitian=True)
    ends = np.array([(place[one], place[other]) for one, other in rates])
    first, second = ends.T
    resistance = float((inverse[first, first] + inverse[second, second] - 2 * inverse[first, second]).max())
    found = constants(connectivity, resistance)
    return Momentum(found.mixing_rate, found.momentum_share, float(laplacian[place[own], place[own]]))

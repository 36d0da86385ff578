"""Compute the constants of A2CiD2, a momentum that speeds up agreement on sparse graphs.

Source: Nabli, Belilovsky, Oyallon 2023, "A2CiD2: Accelerating Asynchronous Communication in Decentralized Deep
Learning", arXiv 2306.08289. The formulas are those of the paper and of the code that its authors published with it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from adpsgd_node.core.topology.contract import Topology

__all__ = ["Constants", "constants", "exchange_rates", "mixed_part"]

LAG = 0.5
"""Part of the exchange rates that eta is made for. What an exchange brings reaches the momentum a step or two late:
made for the full rates, a ring of 64 diverges when that is two steps; made for half of them, not even at three."""


@dataclass(frozen=True, slots=True)
class Constants:
    """What a node does with its momentum; `tilde` below is the second copy of the parameters, which has it."""

    mixing_rate: float
    """eta: how fast parameters and tilde pull each other, for each unit of time."""
    momentum_share: float
    """alpha~ / alpha: how many times as far an exchange moves tilde as the parameters; 1 or more."""


def constants(connectivity: float, resistance: float) -> Constants:
    """Return eta = 1 / (2 sqrt(chi1 chi2)) and alpha~ / alpha = sqrt(chi1 / chi2), with alpha = 1/2.

    connectivity: lambda_2 of L = sum over edges of l_ij (e_i - e_j)(e_i - e_j)^T, where l_ij is how often the edge is
    used in a unit of time; chi1 = 1 / lambda_2.
    resistance: max over edges of (e_i - e_j)^T L^+ (e_i - e_j), the largest effective resistance of an edge; chi2 is
    half of it. chi2 <= chi1, and equal on a complete graph, where there is nothing to gain.
    """
    chi1, chi2 = 1.0 / (LAG * connectivity), resistance / (2 * LAG)
    return Constants(0.5 / math.sqrt(chi1 * chi2), math.sqrt(max(1.0, chi1 / chi2)))


def mixed_part(mixing_rate: float, time: float) -> float:
    """Return which part c of tilde - x moves to x, and of x - tilde to tilde, in this time.

    exp(time [[-eta, eta], [eta, -eta]]) = [[1 - c, c], [c, 1 - c]] with c = (1 - exp(-2 eta time)) / 2.
    """
    return -0.5 * math.expm1(-2.0 * mixing_rate * time)


def exchange_rates(
    topology: Topology, names: Sequence[str], outbound_only: Collection[str]
) -> dict[tuple[str, str], float]:
    """Return how often each edge is used when every node starts one exchange in a unit of time; (one, other) sorted.

    names: the sorted live names. A node draws among those neighbors that it can call: not those in `outbound_only`.
    """
    rates: dict[tuple[str, str], float] = {}
    for name in names:
        called = [other for other in topology.neighbors(names, name) if other not in outbound_only]
        for other in called:
            edge = (min(name, other), max(name, other))
            rates[edge] = rates.get(edge, 0.0) + 1.0 / len(called)
    return rates

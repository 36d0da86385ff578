"""Correct for nodes that step at different rates, so that a fast node's data does not count for more than a slow one's.

With r_i steps a second of node i, a run minimizes the sum of r_i f_i instead of the sum of f_i; where the shards f_i
differ, that is another model (objective inconsistency: Wang, Liu, Liang, Joshi, Poor 2020, "Tackling the Objective
Inconsistency Problem in Heterogeneous Federated Optimization", arXiv 2007.07481). FedNova divides what a node brings by
its number of local steps and multiplies by the mean number; here each step is multiplied by

    s_i = clip(mean(r) / r_i, 1 / C, C)

which leaves the sum of all rates as it is, while no clip holds: sum_i r_i s_i = sum_i r_i.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from adpsgd_node.core.progress import ProgressEntry
from adpsgd_node.ids import NodeId

__all__ = ["RateCorrection"]

WINDOW_S = 20.0
"""Rates are means over so long, or over one step where that takes longer."""
SAMPLE_S = 1.0
"""Counters are looked at no more often."""
LEAST_SPAN_S = 2.0
"""A rate is known once counters were watched so long."""
PAUSE = 5.0
"""Who takes so many times its usual time for a step, and seconds, has paused: its rate is measured anew from there."""


class RateCorrection:
    """The scale of one node's learning rates."""

    def __init__(self, own: NodeId, most: float) -> None:
        """`most`: C, the largest scale; 1 / C is the smallest."""
        self.scale = 1.0
        """1 until the own rate is known."""
        self._own = own
        self._most = most
        self._looked_at = float("-inf")
        self._counts: dict[NodeId, deque[tuple[float, int]]] = {}

    def observe(self, now: float, stepping: Iterable[ProgressEntry]) -> None:
        """Take in the counters of all nodes that step now, this one among them; those not named are forgotten."""
        if now < self._looked_at + SAMPLE_S:
            return
        self._looked_at = now
        known, self._counts = self._counts, {}
        for entry in stepping:
            self._counts[entry.node] = counts = known.get(entry.node, deque())
            if entry.steps and (not counts or entry.steps > counts[-1][1]):
                if _paused(counts, now, entry.steps):
                    counts.clear()
                counts.append((now, entry.steps))
            while len(counts) > 2 and counts[0][0] < now - WINDOW_S:
                counts.popleft()
        self.scale = self._scale(now)

    def rate(self, node: NodeId, now: float) -> float | None:
        """Return a node's steps a second; None: not known yet.

        From the first to the last change of its counter. A node whose next step is overdue is slower than it was: with
        that step it would have done one more until now, no sooner.
        """
        counts = self._counts.get(node)
        if not counts or now - counts[0][0] < LEAST_SPAN_S:
            return None
        (first_at, first), (last_at, last) = counts[0], counts[-1]
        at_most = (last - first + 1) / (now - first_at)
        return at_most if last == first else min(at_most, (last - first) / (last_at - first_at))

    def _scale(self, now: float) -> float:
        rates = [rate for node in self._counts if (rate := self.rate(node, now)) is not None]
        own = self.rate(self._own, now)
        if own is None:
            return 1.0
        return min(max(sum(rates) / len(rates) / own, 1.0 / self._most), self._most)


def _paused(counts: deque[tuple[float, int]], now: float, steps: int) -> bool:
    """Tell whether a node that steps again did something else meanwhile, such as evaluating."""
    if len(counts) < 2:
        return False
    (first_at, first), (last_at, last) = counts[0], counts[-1]
    usual_s = (last_at - first_at) / (last - first) * (steps - last)
    return now - last_at > PAUSE * max(usual_s, SAMPLE_S)

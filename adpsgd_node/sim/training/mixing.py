"""Mix the parameters of all nodes with their neighbors' at once, and say when the messages for it arrive."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from adpsgd_node.core.topology import metropolis_weight, topology_named
from adpsgd_node.sim.training.link import LinkTable
from adpsgd_node.sim.training.objective import Vector
from adpsgd_node.sim.training.scenario import TrainingScenario

__all__ = ["Flags", "Mixing"]

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

SPARSE = 16
"""Among so many times as many members as neighbors, rows are gathered; else a product with a full matrix is faster."""


class Mixing:
    """The graph over the members of a round; `degree` is the largest. Arrays [members, degree] have a slot a neighbor.

    A node's slots are in the order in which it sends: the next member first, so that not all send to the same at once.
    """

    def __init__(self, scenario: TrainingScenario, links: LinkTable, members: Sequence[int]) -> None:
        names = [scenario.names[node] for node in members]
        place = {name: index for index, name in enumerate(names)}
        topology = topology_named(scenario.topology)
        found = [[place[name] for name in topology.neighbors(names, own)] for own in names]
        degrees = [len(row) for row in found]
        count = len(members)
        self.degree = max(degrees, default=0)
        self.neighbors: Places = np.zeros((count, self.degree), dtype=np.int64)
        """Who is behind each slot; 0 where there is none."""
        self._used: Flags = np.zeros((count, self.degree), dtype=np.bool_)
        self._weights: Vector = np.zeros((count, self.degree))
        for own, row in enumerate(found):
            row.sort(key=lambda other, own=own: (other - own) % count)  # type: ignore[misc]
            self.neighbors[own, : len(row)] = row
            self._used[own, : len(row)] = True
            self._weights[own, : len(row)] = [metropolis_weight(len(row), degrees[other]) for other in row]
        self._full: Vector | None = None
        self._time_links(scenario.network.payload_bytes, links, np.array(members, dtype=np.int64))

    def _time_links(self, count_bytes: int, links: LinkTable, nodes: Places) -> None:
        """Work out what a message of each slot takes: up from its sender, on the way, and down to its receiver."""
        own, other = nodes[:, np.newaxis], nodes[self.neighbors]
        rate = np.broadcast_to(links.rate[own], other.shape)
        if links.rate_matrix is not None:
            rate = np.minimum(rate, links.rate_matrix[own, other])
        latency_s = links.latency_s if links.latency_matrix_s is None else links.latency_matrix_s[own, other]
        self._up_s: Vector = np.where(self._used, count_bytes / rate, 0.0)
        self._latency_s: Vector = np.where(self._used, latency_s, 0.0)
        self._down_s: Vector = count_bytes / links.rate[nodes]
        members = np.arange(len(nodes))[:, np.newaxis]
        slot_of = np.zeros((len(nodes), len(nodes)), dtype=np.int64)
        slots = np.broadcast_to(np.arange(self.degree), self.neighbors.shape)
        slot_of[np.broadcast_to(members, slots.shape)[self._used], self.neighbors[self._used]] = slots[self._used]
        self._slot_of_sender: Places = slot_of[self.neighbors, members]

    def departures(self, start_s: Vector) -> Vector:
        """Return when the message of each slot has left, the messages of a node one after the other from its start."""
        return start_s[:, np.newaxis] + np.cumsum(self._up_s, axis=1)

    def arrivals(self, left_s: Vector, lost_s: Vector) -> tuple[Vector, Flags]:
        """Return when each member has the last message that comes to it, and which slots' messages never come.

        `left_s` is what `departures` returned; `lost_s` says when each member is lost, infinite for one that is not.
        """
        sender, slot = self.neighbors, self._slot_of_sender
        left = left_s[sender, slot]
        missing: Flags = self._used & (left > lost_s[sender])
        comes = self._used & ~missing
        first = np.where(comes, left - self._up_s[sender, slot] + self._latency_s[sender, slot], math.inf)
        last = np.where(comes, left + self._latency_s[sender, slot], -math.inf).max(axis=1, initial=-math.inf)
        # What comes first down the link goes first: from the q-th arrival on, all that are left follow without a gap.
        first.sort(axis=1)
        following = comes.sum(axis=1)[:, np.newaxis] - np.arange(self.degree)
        through = np.where(following > 0, first, -math.inf) + following * self._down_s[:, np.newaxis]
        return np.maximum(last, through.max(axis=1, initial=-math.inf)), missing

    def delivered(self, missing: Flags, alive: Flags) -> int:
        """Count the messages that came to those of the members who live."""
        return int((self._used & ~missing)[alive].sum())

    def drop(self, missing: Flags) -> None:
        """Give the weight of each slot whose message is missing to the receiver itself, now and from now on."""
        if (self._weights[missing] > 0).any():
            self._weights[missing] = 0.0
            self._full = None

    def mix(self, values: Vector) -> Vector:
        """Return the weighted average of each member's `values` and its neighbors', [members, dimension]."""
        own = 1.0 - self._weights.sum(axis=1)
        if self.degree * SPARSE < len(values):
            mixed: Vector = own[:, np.newaxis] * values
            for slot in range(self.degree):
                mixed += self._weights[:, slot, np.newaxis] * values[self.neighbors[:, slot]]
            return mixed
        if self._full is None:
            self._full = np.diag(own)
            members = np.arange(len(values))[:, np.newaxis]
            np.add.at(self._full, (np.broadcast_to(members, self.neighbors.shape), self.neighbors), self._weights)
        product: Vector = self._full @ values
        return product

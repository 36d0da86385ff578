"""Merge the steps and samples of all nodes: a grow-only counter (to be completed)."""

from __future__ import annotations

from dataclasses import dataclass

from adpsgd_node.ids import NodeId

__all__ = ["ProgressEntry"]


@dataclass(frozen=True, slots=True)
class ProgressEntry:
    """The steps and samples of one life of one node."""

    node: NodeId
    steps: int
    samples: int

"""The flat shared-memory image of a model that daemon and trainer share."""

from adpsgd_node.plane.fold import Fold
from adpsgd_node.plane.header import Command, Header, TrainerState
from adpsgd_node.plane.layout import Layout, Placement, Segment, TensorSpec, describe_difference
from adpsgd_node.plane.plane import Plane

__all__ = [
    "Command",
    "Fold",
    "Header",
    "Layout",
    "Placement",
    "Plane",
    "Segment",
    "TensorSpec",
    "TrainerState",
    "describe_difference",
]

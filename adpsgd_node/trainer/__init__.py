"""The trainer's side of a node: everything that runs in the user's script."""

from adpsgd_node.trainer.join import join
from adpsgd_node.trainer.node import Node
from adpsgd_node.trainer.progress import Progress, Result

__all__ = ["Node", "Progress", "Result", "join"]

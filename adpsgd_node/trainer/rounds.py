"""D-PSGD's steps: the gradient and the mixing with all neighbors start from the same parameters (Lian et al. 2017,
arXiv 1705.09056, algorithm 1), so the step waits until both are there.
"""

from __future__ import annotations

from adpsgd_node.plane.header import Command, Header
from adpsgd_node.trainer.gate import Gate
from adpsgd_node.trainer.replica import Replica
from adpsgd_node.trainer.rhythm import Rhythm

__all__ = ["Rounds"]


class Rounds(Rhythm):
    """Round k mixes the parameters after step k while the gradient at them is computed."""

    def __init__(self, header: Header, replica: Replica, gate: Gate) -> None:
        self._header = header
        self._replica = replica
        self._gate = gate

    def before_step(self) -> None:
        """Wait until this round is mixed, and take all of it in; a node that is told to stop waits no more."""
        header = self._header
        self._gate.wait(lambda: header.mixed >= header.step or header.command is Command.STOP)
        self._replica.catch_up()

    def after_step(self) -> None:
        """Publish the parameters that the next round mixes: all of them, and now."""
        self._replica.flush()

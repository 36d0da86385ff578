"""The contract between the step loop and an algorithm: what a step waits for, and what is done once it is applied.

`rhythm_of` chooses among the implementations: `Rhythm` itself (AD-PSGD, which waits for nothing), `rounds` (D-PSGD),
`push_pull` (A-PSGD), `allreduce`.
"""

from __future__ import annotations

__all__ = ["Rhythm"]


class Rhythm:
    """What AD-PSGD does around the steps of a node: nothing, as no step waits for anybody (invariant 3)."""

    def before_step(self) -> None:
        """The gradient is there; exchanges are not folded in yet, the step is not applied."""

    def after_step(self) -> None:
        """The step is applied; the daemon has not been told of it."""

    def between_steps(self) -> None:
        """The daemon has been told of the step; the script has not gone on yet."""

    def agrees_to_stop(self, told: bool) -> bool:
        """Whether the node leaves the training loop now; `told`: its daemon says so."""
        return told

    def totals(self) -> tuple[int, int] | None:
        """Steps and samples of all nodes, if the algorithm itself counts them; None: as the daemon has heard."""
        return None

    def take_waited_s(self) -> float:
        """Return the seconds spent in waits since the last call, but not in `before_step`."""
        return 0.0

    def stop(self) -> None:
        """The node steps no more: it is about to finish, or to detach. May be called again."""

    def close(self) -> None:
        """The node is about to go: give back what ties it to other trainers. After `stop`; may be called again."""

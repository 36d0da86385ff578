"""Say what a simulation of membership found."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MembershipReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipReport:
    """The figures of one run; the same scenario always gives the same ones."""

    members: int
    preset: str
    loss: float
    seed: int
    simulated_s: float
    """Length of the measured part, in simulated seconds."""
    crashed: int
    false_deaths: int
    """Lives that somebody held dead while they ran and could be reached, from the first start on."""
    false_deaths_joining: int
    """Of these, the ones before the measured part."""
    detection_s_max: float | None
    """From a crash until the last live member held the crashed one dead; None: nothing crashed, or some never knew."""
    undetected: int
    """Crashes that some live member did not know at the end."""
    joined_s: float | None
    """From the first start until every member knew every other; None: not within the limit, then measured anyway."""
    messages_per_node_s: float
    """Packets, join questions and join answers sent in the measured part, by one member in one second."""
    converged: bool
    """Whether at the end every live member held exactly the live ones live."""
    events: int
    """Events carried out, from the start on."""

    def lines(self) -> list[str]:
        """Write the figures for people."""
        joined = "not within the limit" if self.joined_s is None else f"in {self.joined_s:.1f} s"
        detected = "not measured" if self.detection_s_max is None else f"{self.detection_s_max:.1f} s"
        return [
            f"{self.members} members, preset {self.preset}, loss {self.loss:.1%}, seed {self.seed}: "
            f"{self.simulated_s:.0f} simulated seconds, {self.events} events",
            f"all joined:            {joined}",
            f"false deaths:          {self.false_deaths}, of which before all had joined: {self.false_deaths_joining}",
            f"crashes:               {self.crashed}, of which not known to all: {self.undetected}",
            f"known to all at last:  {detected}",
            f"messages per node:     {self.messages_per_node_s:.2f} a second",
            f"views at the end:      {'right' if self.converged else 'WRONG'}",
        ]

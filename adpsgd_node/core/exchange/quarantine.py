"""Keep away from peers whose chunks had to be refused, and note which peers keep away from this node.

The first offence of a boot costs `FIRST_S`, each further one twice as much as the one before, up to `LONGEST_S`. Clean
exchanges afterwards forgive slowly, one offence for every `FORGIVING_EXCHANGES`. A new boot starts clean.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass

from adpsgd_node.core.exchange.frame import AbortReason
from adpsgd_node.ids import NodeId

__all__ = [
    "FIRST_S",
    "LONGEST_S",
    "MAX_OFFENDERS",
    "Offence",
    "OffenceKind",
    "Quarantine",
    "Refusals",
    "Sentence",
    "accusation",
]

FIRST_S = 30.0
LONGEST_S = 3600.0
FORGIVING_EXCHANGES = 32
MAX_OFFENDERS = 1024
"""Boots of peers with an offence on record; the one that offended longest ago goes first."""

REFUSAL_HOLDS_S = 60.0
"""A peer that refused what this node sends is taken to do so for this time; it is asked again much sooner."""
MAX_REFUSING = 1024
SEVERAL = 2
"""So many peers that refuse this node are no mistake of theirs."""


class OffenceKind(enum.Enum):
    """What was wrong with a peer's chunk; the values label the metrics."""

    NON_FINITE = "non_finite"
    NORM_JUMP = "norm_jump"


@dataclass(frozen=True, slots=True)
class Offence:
    """One chunk that had to be refused."""

    kind: OffenceKind
    index: int
    ratio: float = float("inf")
    """How many times larger than expected; infinite when it was not finite."""

    def __str__(self) -> str:
        if self.kind is OffenceKind.NON_FINITE:
            return f"chunk {self.index} was not finite"
        return f"norm jump: chunk {self.index} was {self.ratio:.3g} times as large as expected"


@dataclass(frozen=True, slots=True)
class Sentence:
    """One peer is left alone for a while."""

    peer: NodeId
    offence: Offence
    seconds: float
    offences: int
    """How many are on record, this one included."""


@dataclass(slots=True)
class _Record:
    offence: Offence
    offences: int
    until: float
    clean: int = 0


class Quarantine:
    """The peers that this node exchanges nothing with for now, and why."""

    def __init__(self) -> None:
        self._records: OrderedDict[NodeId, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def offended(self, peer: NodeId, offence: Offence, now: float) -> Sentence | None:
        """Take in an offence; None when the peer is in quarantine already (it was sent before that began)."""
        record = self._records.get(peer)
        if record is not None and now < record.until:
            return None
        offences = record.offences + 1 if record is not None else 1
        seconds = min(LONGEST_S, FIRST_S * 2.0 ** min(offences - 1, 16))
        self._records[peer] = _Record(offence, offences, now + seconds)
        self._records.move_to_end(peer)
        while len(self._records) > MAX_OFFENDERS:
            self._records.popitem(last=False)
        return Sentence(peer, offence, seconds, offences)

    def clean(self, peer: NodeId) -> None:
        """Note a complete exchange in which nothing had to be refused."""
        record = self._records.get(peer)
        if record is None:
            return
        record.clean += 1
        if record.clean >= FORGIVING_EXCHANGES:
            record.offences, record.clean = record.offences - 1, 0
            if not record.offences:
                del self._records[peer]

    def holds(self, peer: NodeId, now: float) -> bool:
        record = self._records.get(peer)
        return record is not None and now < record.until

    def why(self, peer: NodeId, now: float) -> str:
        """Say why `peer` is in quarantine, and for how long still; empty when it is not."""
        record = self._records.get(peer)
        if record is None or now >= record.until:
            return ""
        return f"{record.offence}; for {record.until - now:.0f} s more"

    def count(self, now: float) -> int:
        """Return how many peers are in quarantine."""
        return sum(now < record.until for record in self._records.values())

    def forget(self, peer: NodeId) -> None:
        """Drop a boot that is over."""
        self._records.pop(peer, None)


class Refusals:
    """The peers that refuse what this node sends."""

    def __init__(self) -> None:
        self._peers: OrderedDict[NodeId, tuple[str, float]] = OrderedDict()

    def refused(self, peer: NodeId, why: str, now: float) -> None:
        """Note that `peer` has refused a chunk, or an exchange because of earlier ones."""
        self._peers[peer] = (why, now)
        self._peers.move_to_end(peer)
        while len(self._peers) > MAX_REFUSING:
            self._peers.popitem(last=False)

    def accepted(self, peer: NodeId) -> None:
        """Note that `peer` has averaged with this node, or is gone."""
        self._peers.pop(peer, None)

    def holds(self, peer: NodeId, now: float) -> bool:
        return peer in self._peers and now < self._peers[peer][1] + REFUSAL_HOLDS_S

    def problem(self, now: float) -> str:
        """Say that several peers refuse this node; empty when they do not."""
        refusing = {peer: why for peer, (why, _) in self._peers.items() if self.holds(peer, now)}
        if len(refusing) < SEVERAL:
            return ""
        names = ", ".join(sorted(peer.name for peer in refusing)[:8])
        latest = list(refusing.values())[-1]
        return f"{len(refusing)} peers refuse what this node sends ({names}): {latest}"


def accusation(reason: AbortReason) -> str:
    """Say what an `Abort` accuses the initiator of; empty when it does not."""
    match reason:
        case AbortReason.NORM_JUMP:
            return "norm jump"
        case AbortReason.NON_FINITE_THEIRS:
            return "values that are not finite"
        case AbortReason.NON_FINITE_OWN:
            return ""

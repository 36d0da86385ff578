"""Measure how fast each peer is, and derive from it how long an exchange with it may take.

Smoothed mean and mean deviation as TCP estimates its round trip (RFC 6298, section 2), once for the time between two
messages and once for the seconds that a byte takes over a whole exchange. As there (section 5.5) a deadline that was
missed is no measurement, but doubles the next ones until an exchange completes: a peer that became slow for good gets
through in the end, and one that hangs holds a slot no longer than its own pace gives reason to.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from adpsgd_node.ids import NodeId

__all__ = ["MAX_MEASURED_PEERS", "Deadlines", "PeerRate", "Rates"]

MEAN_WEIGHT = 1 / 8
DEVIATION_WEIGHT = 1 / 4
DEVIATIONS = 4.0
"""Weights of a new sample, and how many mean deviations above the mean are still normal: those of RFC 6298."""

SLACK = 4.0
"""A whole exchange may take so many times its mean: a node is in three at once, and its trainer has spells too."""

UNKNOWN_BYTES_PER_S = 256 * 1024
"""What a peer not measured yet is trusted to reach at least."""

LEAST_IDLE_S = 3.0
"""A stream may be silent for so long whatever the peer's pace was: event loops and garbage collectors pause."""
UNKNOWN_IDLE_S = 5.0
"""The same for a peer not measured yet, on top of the time that one message takes at the lowest speed."""
LONGEST_IDLE_S = 120.0

LEAST_WHOLE_S = 10.0
"""Any exchange may take so long as a whole."""
UNKNOWN_WHOLE_S = 30.0
LONGEST_WHOLE_S = 3600.0
"""Hard cap: what is averaged over a longer time is too stale to be of use."""

MAX_DOUBLINGS = 8

MAX_MEASURED_PEERS = 1024
"""Peers whose pace is kept; the one met longest ago goes first."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The limits of one exchange, in seconds."""

    idle_s: float
    """Between two messages."""
    whole_s: float
    """From its opening to its end."""


class _Smoothed:
    """A running mean and mean deviation; `None` before the first sample."""

    __slots__ = ("deviation", "mean")

    def __init__(self) -> None:
        self.mean: float | None = None
        self.deviation = 0.0

    def add(self, sample: float) -> None:
        if self.mean is None:
            self.mean, self.deviation = sample, sample / 2
            return
        self.deviation += DEVIATION_WEIGHT * (abs(sample - self.mean) - self.deviation)
        self.mean += MEAN_WEIGHT * (sample - self.mean)


class PeerRate:
    """The pace of one peer, as this node has met it."""

    def __init__(self) -> None:
        self._gap = _Smoothed()
        self._seconds_per_byte = _Smoothed()
        self._doublings = 0

    def waited(self, seconds: float) -> None:
        """Note the time between two messages of a running exchange."""
        self._gap.add(seconds)

    def completed(self, count: int, seconds: float) -> None:
        """Note a complete exchange of `count` bytes each way."""
        self._doublings = 0
        if count > 0:
            self._seconds_per_byte.add(seconds / count)

    def timed_out(self) -> None:
        """Note that a deadline was missed: the next ones are twice as long."""
        self._doublings = min(MAX_DOUBLINGS, self._doublings + 1)

    def deadlines(self, total_bytes: int, message_bytes: int) -> Deadlines:
        """Return the limits of an exchange of `total_bytes` each way, in messages of at most `message_bytes`."""
        factor = 2.0**self._doublings
        return Deadlines(
            min(LONGEST_IDLE_S, factor * self._idle(message_bytes)),
            min(LONGEST_WHOLE_S, factor * self._whole(total_bytes)),
        )

    def _idle(self, message_bytes: int) -> float:
        if self._gap.mean is None:
            return UNKNOWN_IDLE_S + message_bytes / UNKNOWN_BYTES_PER_S
        # A slower side of several, larger messages than before: the smoothed gap is what a message took, not more.
        return max(LEAST_IDLE_S, SLACK * self._gap.mean + DEVIATIONS * self._gap.deviation)

    def _whole(self, total_bytes: int) -> float:
        pace = self._seconds_per_byte
        if pace.mean is None:
            return UNKNOWN_WHOLE_S + total_bytes / UNKNOWN_BYTES_PER_S
        return max(LEAST_WHOLE_S, total_bytes * (SLACK * pace.mean + DEVIATIONS * pace.deviation))


class Rates:
    """The pace of every peer met lately, by boot: a name may come back on another machine."""

    def __init__(self) -> None:
        self._peers: OrderedDict[NodeId, PeerRate] = OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def of(self, peer: NodeId) -> PeerRate:
        """Return what is known of `peer`; it is remembered from now on."""
        rate = self._peers.get(peer)
        if rate is None:
            rate = self._peers[peer] = PeerRate()
            while len(self._peers) > MAX_MEASURED_PEERS:
                self._peers.popitem(last=False)
        self._peers.move_to_end(peer)
        return rate

    def forget(self, peer: NodeId) -> None:
        """Drop a boot that is over."""
        self._peers.pop(peer, None)

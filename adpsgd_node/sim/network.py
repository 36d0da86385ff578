"""Decide of each message whether it arrives, and when: loss, delay and partitions, one way of a link at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from adpsgd_node.errors import ConfigError
from adpsgd_node.ids import Address

__all__ = ["Link", "Network"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What one way between two addresses does to messages."""

    loss: float = 0.0
    """Probability that a message is lost."""
    delay_min_s: float = 0.001
    """Shortest time a message takes, in seconds; uniform between this and `delay_max_s`, so messages overtake."""
    delay_max_s: float = 0.02
    """Longest time a message takes, in seconds."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.loss <= 1.0:
            raise ConfigError(f"loss is {self.loss}: give a probability from 0 to 1.")
        if not 0.0 <= self.delay_min_s <= self.delay_max_s:
            raise ConfigError(
                f"delays from {self.delay_min_s} s to {self.delay_max_s} s: give 0 <= delay_min_s <= delay_max_s."
            )


def _nobody_asks() -> None:
    pass


class Network:
    """Joins every address with every other by `link`, unless one way was set apart or a partition stands between."""

    def __init__(self, rng: random.Random, link: Link | None = None) -> None:
        self.link = link or Link()
        """What every way is like that has no entry of its own."""
        self.sent = 0
        """Messages given to the network."""
        self.lost = 0
        """Of these, the ones it lost or a partition stopped when they were sent."""
        self.healed: Callable[[], None] = _nobody_asks
        """Called after each `heal`."""
        self._rng = rng
        self._ways: dict[tuple[Address, Address], Link] = {}
        self._sides: tuple[frozenset[Address], ...] = ()

    def set_way(self, source: Address, target: Address, link: Link) -> None:
        """Give the way from `source` to `target`, and only that direction, a link of its own."""
        self._ways[source, target] = link

    def partition(self, *sides: Collection[Address]) -> None:
        """Let messages pass only within a side; an address on no side reaches nobody. Replaces an earlier partition."""
        self._sides = tuple(frozenset(side) for side in sides)

    def heal(self) -> None:
        """End the partition, and give every way the common link again."""
        self._sides = ()
        self._ways.clear()
        self.healed()

    @property
    def parted(self) -> bool:
        """Whether there is a partition."""
        return bool(self._sides)

    def connected(self, source: Address, target: Address) -> bool:
        """Tell whether no partition stands between the two."""
        return not self._sides or any(source in side and target in side for side in self._sides)

    def way(self, source: Address, target: Address) -> Link | None:
        """Return what the way from `source` to `target` is like now; None while a partition stands between."""
        if not self.connected(source, target):
            return None
        return self._ways.get((source, target), self.link)

    def transit_s(self, source: Address, target: Address) -> float | None:
        """Take one message: return the seconds it is under way, None when it is lost."""
        self.sent += 1
        link = self._ways.get((source, target), self.link) if self._ways else self.link
        dropped = self._rng.random() < link.loss
        if dropped or not self.connected(source, target):
            self.lost += 1
            return None
        return self._rng.uniform(link.delay_min_s, link.delay_max_s)

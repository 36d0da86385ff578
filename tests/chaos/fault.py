"""Draw a schedule of faults from a seed: what happens to which nodes, when, and for how long.

The whole schedule stands before the first fault: the same seed, nodes, time and abilities of the hosts give the same
one, however the run goes.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = [
    "CUTTING",
    "DOWN",
    "LEAST_ROLLING_S",
    "LEAST_UP",
    "Fault",
    "FaultKind",
    "Schedule",
    "draw_schedule",
    "last_storm",
    "possible_kinds",
]


class FaultKind(enum.Enum):
    KILL_DAEMON = "kill_daemon"
    """SIGKILL; a new life starts when the fault ends. Its trainer must end by itself."""
    KILL_NODE = "kill_node"
    """SIGKILL of daemon and trainer at once, as by a power cut."""
    KILL_TRAINER = "kill_trainer"
    STOP_DAEMON = "stop_daemon"
    """SIGSTOP, and SIGCONT when the fault ends."""
    STOP_TRAINER = "stop_trainer"
    TERMINATE = "terminate"
    """SIGTERM: the node ends in good order, with exit code 0, and a new life starts."""
    RESET_STREAMS = "reset_streams"
    """All exchanges that run are broken in their middle, over and over while the fault lasts."""
    MOVE = "move"
    """SIGKILL, and a new life under the same name at another address."""
    CLOCK_STEP = "clock_step"
    """The wall clock of the running process goes an hour forth or back, and stays so for its later lives."""
    FULL_DISK = "full_disk"
    """Nothing more can be written to where the node writes."""
    LOSS = "loss"
    """A part of the packets is lost, in one direction between two nodes."""
    ONE_WAY_CUT = "one_way_cut"
    """Nothing passes from one node to another; the other way works."""
    ASYMMETRIC_PARTITION = "asymmetric_partition"
    """Nothing passes from some nodes to the rest; the other way works."""
    PARTITION = "partition"
    """Nothing passes between two groups of nodes."""
    ROLLING_RESTART = "rolling_restart"
    """SIGTERM and a new life for every node, one after another, each once the one before trains again."""


DOWN = frozenset(
    {
        FaultKind.KILL_DAEMON,
        FaultKind.KILL_NODE,
        FaultKind.STOP_DAEMON,
        FaultKind.TERMINATE,
        FaultKind.MOVE,
    }
)
"""Kinds under which the node is not up."""

CUTTING = frozenset({FaultKind.ONE_WAY_CUT, FaultKind.ASYMMETRIC_PARTITION, FaultKind.PARTITION})

SECONDS: dict[FaultKind, tuple[float, float]] = {
    FaultKind.KILL_DAEMON: (0.5, 8.0),
    FaultKind.KILL_NODE: (0.5, 8.0),
    FaultKind.KILL_TRAINER: (0.0, 0.0),
    FaultKind.STOP_DAEMON: (1.0, 15.0),  # shorter and longer than a suspicion takes
    FaultKind.STOP_TRAINER: (2.0, 12.0),
    FaultKind.TERMINATE: (0.0, 3.0),
    FaultKind.RESET_STREAMS: (1.0, 5.0),
    FaultKind.MOVE: (0.5, 4.0),
    FaultKind.CLOCK_STEP: (0.5, 4.0),  # until it is seen whether the node trains on; the clock stays wrong
    FaultKind.FULL_DISK: (5.0, 20.0),
    FaultKind.LOSS: (5.0, 15.0),
    FaultKind.ONE_WAY_CUT: (3.0, 15.0),
    FaultKind.ASYMMETRIC_PARTITION: (3.0, 15.0),
    FaultKind.PARTITION: (3.0, 20.0),
}
"""The shortest and the longest time between a fault's beginning and its end."""
LONGEST_S = max(longest for _, longest in SECONDS.values())

WEIGHTS: dict[FaultKind, float] = {
    FaultKind.KILL_TRAINER: 0.5,  # each one in a row makes the node wait longer before it starts its script again
    FaultKind.PARTITION: 1.5,
}
"""How often a kind is drawn, where that is not 1."""

CLOCK_STEP_S = 3600.0
MAX_ACTIVE = 3
LEAST_UP = 3
"""Nodes that no fault keeps down, at any moment."""
FIRST_AFTER_S = 2.0
PAUSE_S = (1.0, 6.0)
"""Between the beginnings of two faults."""
RECOVERY_S = 8.0
"""A node is left alone for so long after a fault of its own: a new life must have begun to train."""
LEAST_ROLLING_S = 150.0
"""Only runs at least this long have a rolling restart, in the middle: on many nodes it takes minutes itself."""
ROLLING_S_PER_NODE = 8.0
STORM_S = 5.0
MAX_DRAWS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. `nodes`: those it befalls; a partition's or a cut's are the first side, `others` the second."""

    kind: FaultKind
    at_s: float
    seconds: float
    nodes: tuple[int, ...]
    others: tuple[int, ...] = ()
    part: float = 0.0
    """Of the packets that are lost."""
    clock_s: float = 0.0
    """By which a wall clock is set forth, or back when it is negative."""

    @property
    def end_s(self) -> float:
        return self.at_s + self.seconds

    def __str__(self) -> str:
        where = ",".join(map(str, self.nodes))
        towards = f" to {','.join(map(str, self.others))}" if self.others else ""
        if self.kind is FaultKind.PARTITION:
            towards = towards.replace("to", "from")
        part = f" {self.part:.0%}" if self.part else ""
        clock = f" by {self.clock_s:+.0f} s" if self.clock_s else ""
        return f"{self.kind.value} {where}{towards}{part}{clock} for {self.seconds:.1f} s"


Schedule = tuple[Fault, ...]


@dataclass(slots=True)
class _Drawing:
    """What the faults drawn so far leave open."""

    rng: random.Random
    count: int
    drawn: list[Fault] = field(default_factory=list)

    def active(self, at_s: float) -> list[Fault]:
        return [fault for fault in self.drawn if fault.end_s > at_s]

    def busy(self, at_s: float) -> set[int]:
        """Return the nodes that have a fault of their own, or had one a moment ago."""
        return {
            node
            for fault in self.drawn
            if fault.kind not in CUTTING and fault.end_s + RECOVERY_S > at_s
            for node in fault.nodes
        }

    def down(self, at_s: float) -> set[int]:
        return {node for fault in self.active(at_s) if fault.kind in DOWN for node in fault.nodes}

    def fits(self, fault: Fault) -> bool:
        active = self.active(fault.at_s)
        if len(active) >= MAX_ACTIVE:
            return False
        if fault.kind in CUTTING:
            return not any(other.kind in CUTTING or other.kind is FaultKind.LOSS for other in active)
        if self.busy(fault.at_s) & set(fault.nodes):
            return False
        if fault.kind is FaultKind.LOSS:
            return not any(other.kind in CUTTING for other in active)
        return fault.kind not in DOWN or self.count - len(self.down(fault.at_s) | set(fault.nodes)) >= LEAST_UP


def possible_kinds(*, can_cut: bool, can_lose: bool) -> tuple[FaultKind, ...]:
    """List the kinds of faults that hosts of these abilities can have."""
    left_out = set() if can_cut else set(CUTTING)
    left_out |= set() if can_lose else {FaultKind.LOSS}
    return tuple(kind for kind in FaultKind if kind not in left_out)


def draw_schedule(seed: int, count: int, seconds: float, kinds: Sequence[FaultKind]) -> Schedule:
    """Draw the faults of a run of `count` nodes; the last one ends within `seconds`."""
    drawing = _Drawing(random.Random(f"{seed}/{count}/{seconds:g}"), count)
    rolling = _rolling(count, seconds, kinds)
    at_s = FIRST_AFTER_S
    once = [kind for kind in kinds if kind is not FaultKind.ROLLING_RESTART]
    drawing.rng.shuffle(once)  # each kind once before any comes twice, as far as the time allows
    while at_s < seconds:
        if rolling is not None and rolling not in drawing.drawn and at_s + LONGEST_S > rolling.at_s:
            at_s = rolling.end_s + drawing.rng.uniform(*PAUSE_S)
            drawing.drawn.append(rolling)
            continue
        fault = _draw_fitting(drawing, at_s, seconds, kinds, once)
        if fault is not None:
            drawing.drawn.append(fault)
        at_s += drawing.rng.uniform(*PAUSE_S)
    return tuple(sorted(drawing.drawn, key=lambda fault: fault.at_s))


def last_storm(count: int) -> Fault:
    """Return what follows every schedule: exchanges of all nodes break, so each surviving life has some to settle."""
    return Fault(kind=FaultKind.RESET_STREAMS, at_s=0.0, seconds=STORM_S, nodes=tuple(range(count)))


def _rolling(count: int, seconds: float, kinds: Sequence[FaultKind]) -> Fault | None:
    if seconds < LEAST_ROLLING_S or FaultKind.ROLLING_RESTART not in kinds:
        return None
    took = ROLLING_S_PER_NODE * count
    kind = FaultKind.ROLLING_RESTART
    return Fault(kind=kind, at_s=(seconds - took) / 2, seconds=took, nodes=tuple(range(count)))


def _draw_fitting(
    drawing: _Drawing, at_s: float, seconds: float, kinds: Sequence[FaultKind], once: list[FaultKind]
) -> Fault | None:
    for kind in list(once):
        fault = _draw(drawing, kind, at_s)
        if fault.end_s <= seconds and drawing.fits(fault):
            once.remove(kind)
            return fault
    usual = [kind for kind in kinds if kind is not FaultKind.ROLLING_RESTART]
    for _ in range(MAX_DRAWS):
        kind = drawing.rng.choices(usual, [WEIGHTS.get(kind, 1.0) for kind in usual])[0]
        fault = _draw(drawing, kind, at_s)
        if fault.end_s <= seconds and drawing.fits(fault):
            return fault
    return None


def _draw(drawing: _Drawing, kind: FaultKind, at_s: float) -> Fault:
    rng, names = drawing.rng, list(range(drawing.count))
    lasting = rng.uniform(*SECONDS[kind])
    rng.shuffle(names)
    match kind:
        case FaultKind.PARTITION | FaultKind.ASYMMETRIC_PARTITION:
            size = rng.randint(1, drawing.count // 2)
            one, other = tuple(sorted(names[:size])), tuple(sorted(names[size:]))
            if kind is FaultKind.ASYMMETRIC_PARTITION and rng.random() < 0.5:
                one, other = other, one
            return Fault(kind=kind, at_s=at_s, seconds=lasting, nodes=one, others=other)
        case FaultKind.ONE_WAY_CUT:
            return Fault(kind=kind, at_s=at_s, seconds=lasting, nodes=(names[0],), others=(names[1],))
        case FaultKind.LOSS:
            part = rng.uniform(0.1, 0.6)
            return Fault(kind=kind, at_s=at_s, seconds=lasting, nodes=(names[0],), others=(names[1],), part=part)
        case FaultKind.CLOCK_STEP:
            clock_s = rng.choice((-CLOCK_STEP_S, CLOCK_STEP_S))
            return Fault(kind=kind, at_s=at_s, seconds=lasting, nodes=(names[0],), clock_s=clock_s)
        case _:
            return Fault(kind=kind, at_s=at_s, seconds=lasting, nodes=(names[0],))

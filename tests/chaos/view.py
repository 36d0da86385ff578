"""Compare what the living nodes believe of each other with what is true."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping

from adpsgd_node.core.membership.member import MemberState
from adpsgd_node.ids import NodeId
from adpsgd_node.wire.admin import Status
from chaos.cluster import Cluster
from chaos.life import Life

__all__ = ["View", "agree", "consensus_distance", "view_of", "views_of"]

LOOK_S = 0.2

View = frozenset[NodeId]


def view_of(status: Status) -> View:
    """Return which lives a node holds alive, itself included."""
    return frozenset(entry.member.id for entry in status.members if entry.member.state is MemberState.ALIVE)


async def ask_all(lives: Iterable[Life]) -> dict[Life, Status | None]:
    chosen = list(lives)
    return dict(zip(chosen, await asyncio.gather(*(life.ask() for life in chosen)), strict=True))


def views_of(statuses: Mapping[Life, Status | None]) -> set[View]:
    """Return the different views; a node that does not answer has an empty one."""
    return {frozenset() if status is None else view_of(status) for status in statuses.values()}


async def agree(cluster: Cluster, since_s: float, limit_s: float) -> tuple[float | None, set[View]]:
    """Wait until all living nodes hold exactly each other alive.

    Returns how many seconds after `since_s` (monotonic) that was, or None when it was not within `limit_s`; and the
    different views at that moment.
    """
    while True:
        living = [life for life in cluster.current if life.alive]
        views = views_of(await ask_all(living))
        took_s = time.monotonic() - since_s
        if views == {frozenset(life.identity for life in living)}:
            return took_s, views
        if took_s > limit_s:
            return None, views
        await asyncio.sleep(LOOK_S)


def consensus_distance(statuses: Mapping[Life, Status | None]) -> float:
    """Return the mean relative distance that the nodes' latest exchanges found; NaN when there was none."""
    known = [s.consensus_distance for s in statuses.values() if s is not None and not math.isnan(s.consensus_distance)]
    return sum(known) / len(known) if known else math.nan

"""Several trainers in one process, each in a thread of its own, that average gradients through torch.distributed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from adpsgd_node.errors import AdpsgdError
from adpsgd_node.plane.header import HEADER_BYTES, Header
from adpsgd_node.trainer.allreduce import AllReduce
from adpsgd_node.trainer.inventory import take_inventory
from adpsgd_node.trainer.world import World, listen
from adpsgd_node.wire.trainer import Go

__all__ = ["HOST", "LIMIT_S", "Member", "QuietLink", "together"]

HOST = "127.0.0.1"
LIMIT_S = 60.0

T = TypeVar("T")


class QuietLink:
    """A daemon that says nothing, until `news` is what it says."""

    def __init__(self) -> None:
        self.news: AdpsgdError | None = None

    def check(self) -> None:
        if self.news is not None:
            raise self.news


class Member:
    """One of the trainers."""

    def __init__(self, rank: int, size: int, rendezvous: str) -> None:
        self.rank = rank
        self.header = Header(np.zeros(HEADER_BYTES, np.uint8))
        self.link = QuietLink()
        go = Go(world_size=size, rank=rank, rendezvous=rendezvous)
        self.world = World(go, HOST, torch.device("cpu"), 8 + rank, self.header, self.link)  # type: ignore[arg-type]

    def average(self, model: nn.Module) -> AllReduce:
        return AllReduce(take_inventory(model).exchanged, model, self.world, self.header)


def together(size: int, work: Callable[[Member], T], before: Callable[[Member], None] = lambda _: None) -> list[T]:
    """Run `work` once for each of `size` trainers at the same time; return the results by rank, or raise an error.

    `before`: what happens to each before they meet. Batches have 8, 9, ... samples.
    """
    listeners = [listen(HOST) for _ in range(size)]
    rendezvous = f"{HOST}:{listeners[0].getsockname()[1]}"
    members = [Member(rank, size, rendezvous) for rank in range(size)]
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(member: Member) -> None:
        try:
            before(member)
            member.world.meet(listeners[member.rank])
            results[member.rank] = work(member)
        except BaseException as error:
            errors.append(error)
            for other in members:  # as the daemons would tell them
                other.link.news = other.link.news or AdpsgdError(f"rank {member.rank} failed: {error}")
        finally:
            member.world.close()

    threads = [threading.Thread(target=run, args=(member,), daemon=True) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive(), "a trainer hangs"
    if errors:
        raise errors[0]
    return [results[rank] for rank in range(size)]

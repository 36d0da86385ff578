"""A fleet of real nodes in one thread: real planes, merges, folds, optimizer hooks and policies, but no network.

What a node computes is the product's own code: `daemon.merge` averages, `trainer.shared` folds, `trainer.hook` says in
which order, `core.algorithms.ad_psgd` says with whom. Only what would carry it, streams and processes, is left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adpsgd_node.codecs import codec_named
from adpsgd_node.core.algorithms.ad_psgd import (
    Activity,
    ActivityChanged,
    AdPsgd,
    ExchangeEnded,
    NeighborsChanged,
    StartExchange,
    Stepped,
)
from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.exchange.outcome import Outcome
from adpsgd_node.daemon.merge import Merge, Merged
from adpsgd_node.plane import Plane
from adpsgd_node.trainer.hook import StepHooks
from support.exact_view import exact_view
from support.replicas import bind
from theory.graph import names_of, topology_over

__all__ = ["Fleet", "FleetNode", "Matrix", "Optimizer", "Worker", "exchange", "gossip", "sgd", "worker_at"]

Matrix = NDArray[np.float64]
Optimizer = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]

FP32 = codec_named(CodecName.FP32)
CHUNK_BYTES = 1024


def sgd(rate: float, **options: float) -> Optimizer:
    """Make plain SGD of this learning rate, each tensor by itself."""
    return partial(torch.optim.SGD, lr=rate, foreach=False, **options)


def exchange(one: Plane, other: Plane, share: float = 1.0, frozen: bool = False) -> None:
    """Average two planes chunk by chunk as an initiator and a responder do, from the bytes that each sends.

    share: the part of the way to the mean that both go. frozen: start from what the trainers have published.
    """
    first, second = Merge(one), Merge(other)
    first.frozen = second.frozen = frozen
    for chunk in range(len(one.layout.chunks)):
        sent = memoryview(FP32.encode(first.view(chunk)).tobytes())
        answered = memoryview(FP32.encode(second.view(chunk)).tobytes())
        assert isinstance(second.apply(FP32, chunk, sent, answered, lambda _: share), Merged)
        assert isinstance(first.apply(FP32, chunk, answered, sent, lambda _: share), Merged)


class FleetNode:
    """One node whose model is one vector, with the optimizer that the product's hooks are tied to."""

    def __init__(self, start: Matrix, optimizer: Optimizer) -> None:
        self.model = nn.ParameterDict({"weight": nn.Parameter(torch.tensor(start, dtype=torch.float32))})
        self.weight = self.model["weight"]
        self.bound = bound = bind(self.model, "shared", chunk_bytes=CHUNK_BYTES)
        self.plane = bound.plane
        self.optimizer = optimizer([self.weight])
        StepHooks([self.optimizer], bound.replica.before_step, bound.replica.after_step)

    def view(self) -> Matrix:
        """Return the parameters with all that exchanges brought: float64 [elements]."""
        return exact_view(self.plane)[: self.weight.numel()]

    def seen(self) -> Matrix:
        """Return the parameters that the script sees, of which it takes the gradient: float64 [elements]."""
        return self.weight.detach().numpy().astype(np.float64)

    def step(self, gradient: Matrix) -> None:
        """Make one optimizer step, as the script does."""
        self.weight.grad = torch.tensor(gradient, dtype=torch.float32)
        self.optimizer.step()


class Fleet:
    """Some nodes, the rows of `start`: float [nodes, elements]."""

    def __init__(self, start: Matrix, optimizer: Optimizer | None = None) -> None:
        self.nodes = [FleetNode(row, optimizer or sgd(0.0)) for row in start]

    def views(self) -> Matrix:
        """Return all nodes' parameters: float64 [nodes, elements]."""
        return np.stack([node.view() for node in self.nodes])

    def mean(self) -> Matrix:
        return self.views().mean(axis=0)

    def exchange(self, one: int, other: int, share: float = 1.0, frozen: bool = False) -> None:
        """Let two nodes average; see `exchange`."""
        exchange(self.nodes[one].plane, self.nodes[other].plane, share, frozen)


@dataclass
class Worker:
    """The policy of one node, and the exchange that it has started."""

    policy: AdPsgd
    names: Sequence[str]
    partner: int | None = None
    """With whom the exchange is that runs beside the present gradient; None: there is none."""
    started: int = 0
    """Exchanges that the policy has asked for."""

    def stepped(self, now: float = 0.0) -> None:
        """Tell the policy of a step; it may start an exchange, which is all that it can do."""
        self._carry_out(self.policy.handle(Stepped(1), now))

    def exchanged(self, now: float = 0.0) -> None:
        """Tell the policy that its exchange is complete; it may start another."""
        assert self.partner is not None
        peer, self.partner = self.names[self.partner], None
        self._carry_out(self.policy.handle(ExchangeEnded(peer, Outcome.COMPLETE), now))

    def _carry_out(self, actions: Sequence[StartExchange]) -> None:
        for action in actions:
            assert type(action) is StartExchange, f"{action} is not something that goes on beside the trainer's steps"
            assert self.partner is None, "two outbound exchanges at once"
            self.partner = self.names.index(action.peer)
            self.started += 1


def worker_at(topology: str, count: int, place: int, rng: random.Random) -> Worker:
    """Make the AD-PSGD policy of one of `count` nodes on the real topology: it steps, with one exchange a step."""
    names = names_of(count)
    policy = AdPsgd(exchanges_per_step=1.0, rng=rng)
    policy.handle(NeighborsChanged(topology_over(topology, count).neighbors(names, names[place])), 0.0)
    policy.handle(ActivityChanged(Activity.STEPPING), 0.0)
    return Worker(policy, names)


def gossip(topology: str, count: int, seed: int) -> list[Worker]:
    """Make the policies of all nodes."""
    return [worker_at(topology, count, place, random.Random(f"{seed}/{place}")) for place in range(count)]

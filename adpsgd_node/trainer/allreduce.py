"""Allreduce's steps: every node applies the average gradient of all, as DistributedDataParallel does.

    g <- (1/n) sum_i g_i          over all n nodes, at the end of each backward pass

A bucket of gradients is sent as soon as the last of them is there, while backward goes on to the layers before. When
`backward()` returns, the averages stand in `.grad`: what a script does to them then, such as clipping, it does on all
nodes alike. With several backward passes to a step each is averaged, as the average of sums is the sum of averages.

Behind the last bucket travel: whether a node was told to stop, so that all stop after the same step; a check that all
are at the same step; which parameters had a gradient anywhere; and the buffers (BatchNorm statistics), whose average
all nodes take.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from adpsgd_node.core.tensor import Segment
from adpsgd_node.errors import AdpsgdError, ModelError, TrainerError
from adpsgd_node.plane.header import Header
from adpsgd_node.trainer.bucket import Bucket, plan
from adpsgd_node.trainer.inventory import ExchangedTensor
from adpsgd_node.trainer.progress import told_to_stop
from adpsgd_node.trainer.rhythm import Rhythm
from adpsgd_node.trainer.world import World

__all__ = ["AllReduce"]

STEP_CYCLE = 4096
"""Steps are compared modulo this: sums of it over the largest world are exact in fp32."""
_STOP, _STEP, _USED = 0, 1, 2
"""What travels behind the last bucket: wish to stop, number of the step, a flag for each parameter, the buffers."""


class AllReduce(Rhythm):
    """Averages the gradients of one model with those of the others in `world`, which has met."""

    def __init__(self, exchanged: Sequence[ExchangedTensor], model: nn.Module, world: World, header: Header) -> None:
        parameters = [entry.tensor for entry in exchanged if entry.spec.segment is Segment.PARAMETERS]
        self._buffers = [entry for entry in exchanged if entry.spec.segment is Segment.BUFFERS]
        buffered = sum(entry.tensor.numel() for entry in self._buffers)
        known = set(parameters)
        self._frozen = [(name, one) for name, one in model.named_parameters() if one not in known]
        self._world = world
        self._header = header
        self._pid = os.getpid()
        self._buckets = plan(parameters, world.device, _USED + len(parameters) + buffered)
        self._order = [parameter for bucket in self._buckets for parameter in bucket.parameters]
        self._slots = {
            parameter: (bucket, ordinal)
            for bucket in self._buckets
            for ordinal, parameter in enumerate(bucket.parameters)
        }
        self._sums: list[Any] = []
        """Under way in this pass, one for each of the first buckets."""
        self._used: set[torch.Tensor] = set()
        """Parameters whose gradient this pass has brought."""
        self._passing = False
        self._averaged = False
        """The gradients of the coming step are averages."""
        self._stopping = False
        self._step = 0
        self._waited_s = 0.0
        self._failure: AdpsgdError | None = None
        self._hooks: list[Any] = [
            parameter.register_post_accumulate_grad_hook(self._on_gradient)  # type: ignore[no-untyped-call]
            for parameter in parameters
        ]

    def before_step(self) -> None:
        """See that the gradients are averages, also those that did not come from `backward()`."""
        for name, frozen in self._frozen:
            if frozen.grad is not None:
                raise ModelError(
                    f"parameter {name} has a gradient, but did not require one at join(): set requires_grad before"
                )
        with self._kept():
            if not (self._passing or self._averaged):
                for parameter in self._order:
                    if parameter.grad is not None:
                        self._bring(parameter)
            if self._passing or not self._averaged:
                self._end_pass()
        self._averaged = False
        self._waited_s = self._world.waited_s  # these waits are not between two steps

    def after_step(self) -> None:
        self._step += 1

    def stop(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def close(self) -> None:
        self._world.close()

    def agrees_to_stop(self, told: bool) -> bool:  # noqa: ARG002 - that is told to the others, not acted upon
        """Stop after a step in which all nodes have heard that one of them was told to."""
        return self._stopping

    def totals(self) -> tuple[int, int]:
        """Count the run's steps and samples as all nodes count them: learning rates that follow them are the same."""
        return self._totals_after(self._step)

    def take_waited_s(self) -> float:
        """Return the time spent in waits for the others since the last call."""
        before, self._waited_s = self._waited_s, self._world.waited_s
        return self._waited_s - before

    def _on_gradient(self, parameter: torch.Tensor) -> None:
        """Take in a gradient that backward has just completed."""
        if os.getpid() != self._pid:
            return
        with self._kept():
            if not self._passing:
                self._passing = True
                # Called once this backward pass has come to its end, as DistributedDataParallel does it.
                torch.autograd.Variable._execution_engine.queue_callback(self._on_end)
            if parameter in self._used:
                raise TrainerError("a backward pass broke off before this one: with allreduce no node can repeat one")
            self._bring(parameter)
            self._send()

    def _on_end(self) -> None:
        with self._kept():
            self._end_pass()

    def _bring(self, parameter: torch.Tensor) -> None:
        gradient = parameter.grad
        if gradient is None or gradient.layout is not torch.strided:
            raise ModelError("a sparse gradient cannot be averaged with allreduce: make it dense (sparse=False)")
        bucket, ordinal = self._slots[parameter]
        with torch.no_grad():
            bucket.put(ordinal, 1.0 / self._world.size)
        bucket.filled += 1
        self._used.add(parameter)

    def _send(self, everything: bool = False) -> None:
        """Send the next buckets that are full; all nodes send the same ones in the same order."""
        while len(self._sums) < len(self._buckets):
            bucket = self._buckets[len(self._sums)]
            if not (bucket.full or everything):
                return
            self._complete(bucket)
            if bucket is self._buckets[-1]:
                self._enclose(bucket.extra)
            self._sums.append(self._world.start_sum(bucket.flat))

    def _complete(self, bucket: Bucket) -> None:
        """Put in what this pass did not bring: what stands there from before, or nothing."""
        for ordinal, parameter in enumerate(bucket.parameters):
            if parameter not in self._used:
                bucket.put(ordinal, 1.0 / self._world.size)

    def _enclose(self, extra: torch.Tensor) -> None:
        used = [float(parameter in self._used) for parameter in self._order]
        head = [float(self._wants_to_stop()), float(self._step % STEP_CYCLE), *used]
        extra[: len(head)] = torch.tensor(head)
        start = len(head)
        for entry in self._buffers:
            values = entry.current().detach()
            extra[start : start + values.numel()] = values.reshape(-1) / self._world.size
            start += values.numel()

    def _end_pass(self) -> None:
        """Wait for all sums, and write the averages to where they belong."""
        with torch.no_grad():
            self._send(everything=True)
            for work in self._sums:
                self._world.finish(work)
            self._take(self._buckets[-1].extra)
        self._sums.clear()
        self._used.clear()
        for bucket in self._buckets:
            bucket.filled = 0
        self._passing, self._averaged = False, True

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Raise what went wrong before, and keep what goes wrong now: nothing can be averaged any more then."""
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except AdpsgdError as error:
            self._failure = error
            raise

    def _wants_to_stop(self) -> bool:
        target = self._header.target_samples
        _, samples = self._totals_after(self._step + 1)
        return told_to_stop(self._header) or bool(target and samples >= target)

    def _totals_after(self, step: int) -> tuple[int, int]:
        steps, samples = self._world.begun_at
        return steps + step * self._world.size, samples + step * self._world.samples_per_step

    def _take(self, extra: torch.Tensor) -> None:
        head: Sequence[float] = extra[: _USED + len(self._order)].tolist()
        if head[_STEP] != self._world.size * (self._step % STEP_CYCLE):
            raise TrainerError(
                f"this node is at step {self._step + 1} and another is not: with allreduce all nodes must call "
                "backward() and step() equally often"
            )
        self._stopping = self._stopping or head[_STOP] > 0
        for parameter, count in zip(self._order, head[_USED:], strict=True):
            if count:
                bucket, ordinal = self._slots[parameter]
                bucket.give(ordinal)
        start = len(head)
        for entry in self._buffers:
            _write(entry, extra[start : start + entry.tensor.numel()])
            start += entry.tensor.numel()


def _write(entry: ExchangedTensor, values: torch.Tensor) -> None:
    """Set a buffer in a way of which autograd, that may have saved it for another backward, takes no notice."""
    current = entry.current().data
    current.copy_(values.view(current.shape))

"""The handle that `join` returns: what a script sees of its node."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import SupportsFloat

import torch
from torch import nn

from adpsgd_node.errors import TrainerError
from adpsgd_node.plane import TrainerState
from adpsgd_node.plane.header import STEP_SECONDS_ENTRIES
from adpsgd_node.trainer.acceleration import fold_of
from adpsgd_node.trainer.algorithm import rhythm_of
from adpsgd_node.trainer.attach import Attachment
from adpsgd_node.trainer.gate import Gate
from adpsgd_node.trainer.handicap import Handicap, device_is_done
from adpsgd_node.trainer.hook import StepHooks
from adpsgd_node.trainer.progress import Progress, Result, read_progress, told_to_stop
from adpsgd_node.trainer.rate_scale import RateScale
from adpsgd_node.trainer.replica import Replica
from adpsgd_node.trainer.save import save_model
from adpsgd_node.trainer.state import StateSaver
from adpsgd_node.trainer.world import World
from adpsgd_node.wire.trainer import Agreed, Saved, Settle

__all__ = ["Node", "Training"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What the script trains, and how it counts."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    batch_size: int
    """Samples in one step of this node."""
    dataset_size: int | None


class Node:
    """A node of a run, tied to the optimizer's steps; a context manager.

    Leaving the `with` block normally calls `finish`; an exception detaches the node and goes on. Only the process that
    joined acts: in forked DataLoader workers the handle does nothing.
    """

    def __init__(
        self, attachment: Attachment, replica: Replica, training: Training, world: World | None = None
    ) -> None:
        self._gate = Gate(attachment.gate_event, attachment.link)
        self._rhythm = rhythm_of(attachment, replica, self._gate, training.model, training.optimizers, world)
        self._attachment = attachment
        self._replica = replica
        self._training = training
        self._header = attachment.plane.header
        self._fold = fold_of(replica, self._header)
        self._rate_scale = RateScale(training.optimizers, self._header)
        self._handicap = Handicap.of(attachment.attached, self._header, attachment.link, device_is_done(training.model))
        self._pid = os.getpid()
        self._result: Result | None = None
        self._attached = True
        self._last_step_at = time.perf_counter()
        self._header.trainer_pid = self._pid
        self._header.non_finite = 0
        self._header.trainer_state = TrainerState.STEPPING
        self._saver = StateSaver(
            attachment.attached.state_folder, self._header, training.optimizers, attachment.step_event
        )
        self._hooks = StepHooks(training.optimizers, self._before_step, self._after_step)

    @property
    def name(self) -> str:
        return self._attachment.attached.node

    @property
    def run_id(self) -> str:
        return self._attachment.attached.run_id

    @property
    def output(self) -> Path:
        """Folder for what this node leaves; the current one when none was set."""
        return Path(self._attachment.attached.output)

    @property
    def step(self) -> int:
        """Optimizer steps of this node, those before a restart of the script included."""
        return self._header.step

    @property
    def progress(self) -> Progress:
        """How far the whole run is; learning-rate schedules may read `progress.fraction`."""
        return read_progress(self._header, self._training.dataset_size, self._rhythm.totals())

    @property
    def should_stop(self) -> bool:
        """Tell whether to leave the training loop: the target is reached, or the daemon is asked to stop."""
        return not self._attached or self._rhythm.agrees_to_stop(told_to_stop(self._header))

    def log(self, *, loss: SupportsFloat | None = None, accuracy: SupportsFloat | None = None) -> None:
        """Show the last loss or accuracy in metrics and status; a loss that is not finite stops the exchanges."""
        if os.getpid() != self._pid:
            return
        if loss is not None:
            value = _number(loss)
            self._header.loss = value
            self._header.non_finite = 0 if math.isfinite(value) else 1
        if accuracy is not None:
            self._header.accuracy = _number(accuracy)

    def finish(self) -> Result:
        """Stop stepping, wait until the run's models agree, load the agreed parameters and write the model file.

        Raises `DaemonLostError`, or what keeps the run from agreeing; the node is detached then. May be repeated.
        """
        if self._result is not None:
            return self._result
        if not self._attached or os.getpid() != self._pid:
            raise TrainerError("this node is detached, so it cannot finish: join again in a new process")
        try:
            self._result = self._finish()
        finally:
            self._leave(TrainerState.FINISHED if self._result else TrainerState.NONE)
        return self._result

    def detach(self) -> None:
        """Leave the run without finishing: the model keeps its present values, the optimizers step on their own."""
        if self._attached and os.getpid() == self._pid:
            self._leave(TrainerState.NONE)

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.detach()
        elif os.getpid() == self._pid:
            self.finish()

    def _finish(self) -> Result:
        link, attached = self._attachment.link, self._attachment.attached
        self._hooks.remove()
        self._rhythm.stop()
        self._replica.flush()
        self._header.trainer_state = TrainerState.SETTLING
        link.send(Settle())
        # A daemon that leaves keeps a checkpoint, and its trainer steps no more by then.
        agreed = link.receive(Agreed, None, meanwhile=self._saver.after_step)
        self._replica.settle()
        path = save_model(Path(attached.output), self._training.model, attached, agreed) if attached.output else None
        self._header.trainer_state = TrainerState.FINISHED
        link.send(Saved(str(path) if path else ""))
        return Result(
            path=path,
            consensus_distance=agreed.consensus_distance,
            steps_total=agreed.steps_total,
            samples_total=agreed.samples_total,
            members=agreed.members,
        )

    def _leave(self, state: TrainerState) -> None:
        """Give everything back, whatever state it is in."""
        self._attached = False
        self._hooks.remove()
        self._rate_scale.put_back()
        self._rhythm.stop()
        self._rhythm.close()
        self._gate.close()
        self._saver.close()
        self._header.trainer_state = state
        os.eventfd_write(self._attachment.step_event, 1)  # others may be waiting for its next step
        try:
            self._replica.release()
        finally:
            self._attachment.link.close()
            self._attachment.plane.close()
            os.close(self._attachment.step_event)
            if self._attachment.child is not None and state is not TrainerState.FINISHED:
                self._attachment.child.stop()

    def _before_step(self) -> None:
        self._act(self._prepare_step)

    def _after_step(self) -> None:
        self._act(self._complete_step)

    def _prepare_step(self) -> None:
        self._handicap.excuse(self._rhythm.take_waited_s())
        self._handicap.stretch()
        self._rhythm.before_step()
        self._handicap.go_on()
        self._fold()
        self._rate_scale.apply()

    def _complete_step(self) -> None:
        self._rate_scale.put_back()
        self._replica.after_step()
        self._rhythm.after_step()
        header, now = self._header, time.perf_counter()
        step = header.step + 1
        header.step_seconds[step % STEP_SECONDS_ENTRIES] = now - self._last_step_at
        self._last_step_at = now
        header.samples += self._training.batch_size
        header.step = step
        os.eventfd_write(self._attachment.step_event, 1)
        self._saver.after_step()
        self._attachment.link.check()
        self._rhythm.between_steps()

    def _act(self, work: Callable[[], None]) -> None:
        """Do our part of a step, if this is the process that joined; what fails half-way must not be stepped on."""
        if os.getpid() != self._pid:
            return
        try:
            work()
        except BaseException:
            self.detach()
            raise


def _number(value: SupportsFloat) -> float:
    """Read a plain number, also out of a tensor that still carries its graph."""
    return float(value.detach() if isinstance(value, torch.Tensor) else value)

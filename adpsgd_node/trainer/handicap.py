"""Make computing take longer than it does: for experiments with unequal nodes, or with many nodes on few cores."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from adpsgd_node.plane.header import Command, Header

if TYPE_CHECKING:  # a test loads this module without the package around it, which imports torch
    from torch import nn

    from adpsgd_node.trainer.link import Link
    from adpsgd_node.wire.trainer import Attached

__all__ = ["LOOK_S", "Handicap", "device_is_done"]

LOOK_S = 0.2
"""How often a waiting step looks whether its daemon still lives, and whether it is to stop."""


class Handicap:
    """Waits before an optimizer step until computing has taken max(measured, `least_s`) * `factor` seconds.

    Computing is what happens between `go_on` and `stretch`. The first step is taken to have computed for `least_s`:
    what else it did was loading, compiling and warming up.
    """

    def __init__(
        self,
        factor: float,
        least_s: float,
        *,
        told_to_stop: Callable[[], bool],
        computed: Callable[[], None] = lambda: None,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """`told_to_stop`: asked while waiting, may raise. `computed`: returns once the device has done its part."""
        self._factor = factor
        self._least_s = least_s
        self._told_to_stop = told_to_stop
        self._computed = computed
        self._clock = clock
        self._sleep = sleep
        self._began: float | None = None

    @classmethod
    def of(cls, attached: Attached, header: Header, link: Link, computed: Callable[[], None]) -> Handicap:
        """Return the handicap that the daemon asks for; its waits raise `DaemonLostError` when that is gone."""

        def told_to_stop() -> bool:
            link.check()
            return header.command is Command.STOP

        return cls(
            attached.slow_factor,
            attached.emulate_step_s,
            told_to_stop=told_to_stop,
            computed=computed,
            clock=time.perf_counter,
            sleep=time.sleep,
        )

    def stretch(self) -> None:
        """The gradient is there: wait for as long as it came too early. One that is told to stop waits no more."""
        if self._factor == 1.0 and self._least_s == 0.0:
            return
        self._computed()
        now = self._clock()
        began = now if self._began is None else self._began
        until = began + max(now - began, self._least_s) * self._factor
        while (rest := until - self._clock()) > 0 and not self._told_to_stop():
            self._sleep(min(rest, LOOK_S))

    def excuse(self, waited_s: float) -> None:
        """So much of the time since `go_on` was no computing, but waiting for others."""
        if self._began is not None:
            self._began += waited_s

    def go_on(self) -> None:
        """All that the step had to wait for is there: computing goes on."""
        self._began = self._clock()


def device_is_done(model: nn.Module) -> Callable[[], None]:
    """Return what waits until the model's device has carried out what this thread has asked of it so far."""
    import torch  # late: see above

    parameter = next(model.parameters(), None)
    if parameter is None or not parameter.is_cuda:
        return lambda: None
    device = parameter.device
    return lambda: torch.cuda.current_stream(device).synchronize()

"""Copies between a CUDA device and the plane, on streams of their own, so that the training stream never waits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from adpsgd_node.trainer.copy_engine import Copy, CopyEngine, Ticket

__all__ = ["CudaCopyEngine"]

_log = logging.getLogger(__name__)


class _EventTicket(Ticket):
    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    def done(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self._event.synchronize()


class CudaCopyEngine(CopyEngine):
    """Registers the plane's mapping with the driver (page-locked), then copies with the device's DMA engines.

    Both directions have a stream, as devices can copy both ways at once. A copy that a ticket reports as done is
    visible to kernels launched afterwards and to this process: no further synchronization is needed.
    """

    def __init__(self, memory: npt.NDArray[np.uint8], device: torch.device) -> None:
        self._device = device
        self._memory = memory  # held: the driver must not see it unmapped
        self._inbound = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._outbound = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._registered = self._register()

    def to_device(self, copies: Sequence[Copy]) -> Ticket:
        return self._start(self._inbound, copies)

    def to_host(self, copies: Sequence[Copy]) -> Ticket:
        return self._start(self._outbound, copies)

    def close(self) -> None:
        self._inbound.synchronize()
        self._outbound.synchronize()
        if self._registered:
            self._registered = False
            with torch.cuda.device(self._device):
                _runtime().cudaHostUnregister(self._memory.ctypes.data)

    def _start(self, stream: torch.cuda.Stream, copies: Sequence[Copy]) -> Ticket:
        with torch.cuda.device(self._device):
            stream.wait_stream(torch.cuda.current_stream(self._device))  # a wait on the device, not of this thread
            with torch.cuda.stream(stream):
                for destination, source in copies:
                    destination.copy_(source, non_blocking=True)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(stream)
        return _EventTicket(event)

    def _register(self) -> bool:
        with torch.cuda.device(self._device):
            code = int(_runtime().cudaHostRegister(self._memory.ctypes.data, self._memory.nbytes, 0))
        if code != 0:
            self._clear_error()
            _log.warning(
                "CUDA could not page-lock the plane of %d bytes (error %d): steps may wait for copies; "
                "raise the memory that this process may lock",
                self._memory.nbytes,
                code,
            )
        return code == 0

    def _clear_error(self) -> None:
        """Take up the error that a failed call leaves behind, or the next kernel's launch would be blamed for it."""
        try:
            torch.zeros(1, device=self._device).add_(1)
        except RuntimeError as error:
            _log.debug("cleared: %s", error)


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]

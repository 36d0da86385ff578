"""The contract for copies between a device and the plane, which run while the model trains.

Two implementations: `HostCopyEngine` here, for tensors on the CPU, and `CudaCopyEngine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

__all__ = ["Copy", "CopyEngine", "HostCopyEngine", "Ticket"]

Copy = tuple[torch.Tensor, torch.Tensor]
"""Destination and source: same shape and dtype, both contiguous."""


class Ticket(ABC):
    """A batch of copies under way."""

    @abstractmethod
    def done(self) -> bool:
        """Tell, without waiting, whether all of it has been copied."""

    @abstractmethod
    def wait(self) -> None:
        """Wait for the batch; only before the first and after the last step."""


class CopyEngine(ABC):
    """Starts copies; each batch begins after the work that the training loop has issued so far."""

    @abstractmethod
    def to_device(self, copies: Sequence[Copy]) -> Ticket:
        """Start to copy from the plane. The daemon may write to a source meanwhile; a torn read is harmless."""

    @abstractmethod
    def to_host(self, copies: Sequence[Copy]) -> Ticket:
        """Start to copy to the plane."""

    @abstractmethod
    def close(self) -> None:
        """Wait for what is under way, then give back what was registered."""


class _Completed(Ticket):
    def done(self) -> bool:
        return True

    def wait(self) -> None:
        pass


class HostCopyEngine(CopyEngine):
    """Copies between CPU tensors, at once."""

    def to_device(self, copies: Sequence[Copy]) -> Ticket:
        for destination, source in copies:
            destination.copy_(source)
        return _Completed()

    def to_host(self, copies: Sequence[Copy]) -> Ticket:
        return self.to_device(copies)

    def close(self) -> None:
        pass

"""Decide who may listen where, and open ports and channels accordingly.

Nothing is encrypted or authenticated yet. TLS belongs here: `Credentials` is the only place that knows whether a port
or a channel is secure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from adpsgd_node.address import is_loopback
from adpsgd_node.address import split_address as parts_of
from adpsgd_node.errors import ConfigError
from adpsgd_node.ids import Address

__all__ = ["Credentials", "split_address"]

ChannelOption = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    insecure: bool = False
    """Whether the user accepts that anyone who reaches the port can read and change the model."""

    def check(self, listen: Address) -> None:
        """Raise `ConfigError` unless `listen` is on loopback or the user accepted an open port."""
        if not self.insecure and not is_loopback(split_address(listen)[0]):
            raise ConfigError(
                f"{listen} can be reached from other machines, and connections are not encrypted or authenticated yet. "
                "Pass --insecure on a network you trust, or listen on 127.0.0.1."
            )

    def exposed(self, listen: Address) -> bool:
        """Tell whether `listen` is an open port that others can reach: to be shown in log, status and metrics."""
        return not is_loopback(split_address(listen)[0])

    def bind(self, server: grpc.aio.Server, listen: Address) -> int:
        """Add the port to `server`; returns its number, 0 or RuntimeError when it cannot be bound."""
        self.check(listen)
        return int(server.add_insecure_port(listen))

    def channel(self, peer: Address, options: Sequence[ChannelOption]) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(peer, options=options)


def split_address(address: Address) -> tuple[str, int]:
    """Return host (without brackets) and port. Raises `ConfigError`."""
    try:
        return parts_of(address)
    except ValueError as error:
        raise ConfigError(str(error)) from None

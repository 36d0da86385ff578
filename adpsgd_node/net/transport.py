"""The contract between the daemon and whatever carries its messages.

A transport moves opaque messages (bytes of the published protobuf schema) between nodes: unary calls and
bidirectional streams. It knows nothing of their meaning. Implementations: `grpc_transport` (production) and `memory`
(deterministic, with injected faults); `tests/conformance/test_transport.py` runs one suite over both.

Both keep to this: at most one task sends and one receives at each end of a stream; cancelling a `receive` breaks the
stream; no peer cancels a handler, so a unary handler runs on after the caller's deadline.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping

from adpsgd_node.ids import Address

__all__ = ["ConverseHandler", "Method", "Stream", "StreamMethod", "Transport", "UnaryHandler"]


class Method(enum.Enum):
    """Unary methods; the value is the gRPC path."""

    DELIVER = "/adpsgd.v1.Membership/Deliver"
    JOIN = "/adpsgd.v1.Membership/Join"
    SETTLE = "/adpsgd.v1.Exchange/Settle"
    OFFER = "/adpsgd.v1.Model/Offer"
    WORLD = "/adpsgd.v1.Model/World"


class StreamMethod(enum.Enum):
    """Bidirectional streams; the value is the gRPC path."""

    CONVERSE = "/adpsgd.v1.Exchange/Converse"
    FETCH = "/adpsgd.v1.Model/Fetch"
    UPDATE = "/adpsgd.v1.ParameterServer/Update"


class Stream(ABC):
    """One end of a bidirectional stream of messages, in order, each whole or not at all."""

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Hand over one message; waits while the peer's window is full. Raises `StreamBrokenError`."""

    @abstractmethod
    async def receive(self) -> bytes | None:
        """Wait for the next message; None once the peer has cleanly ended its side. Raises `StreamBrokenError`."""

    @abstractmethod
    async def end(self) -> None:
        """Say that nothing more will be sent from the calling side (caller's end only)."""

    @abstractmethod
    def cancel(self) -> None:
        """Break the stream now; the other end sees `StreamBrokenError`. Never blocks, may be repeated."""


UnaryHandler = Callable[[bytes], Awaitable[bytes]]
"""Answers one call. Invariant 3: never issues an outbound call and waits. A `WireError` it raises tells the peer so."""

ConverseHandler = Callable[[Stream], Awaitable[None]]
"""Serves one stream; when it returns the stream ends cleanly, when it raises the stream breaks."""


class Transport(ABC):
    """One node's face to the network."""

    @abstractmethod
    async def serve(
        self, unary: Mapping[Method, UnaryHandler], streams: Mapping[StreamMethod, ConverseHandler]
    ) -> Address:
        """Start to answer peers; returns the bound address. Raises `BindError` naming the address and the fix."""

    @abstractmethod
    async def call(self, peer: Address, method: Method, request: bytes, *, timeout_s: float) -> bytes:
        """Make one unary call. Raises `UnreachableError`, `DeadlineError` or `RemoteError`."""

    @abstractmethod
    async def open(self, peer: Address, method: StreamMethod) -> Stream:
        """Start a stream to `peer`. May raise `UnreachableError` now, or `StreamBrokenError` at first use."""

    @abstractmethod
    async def close(self, *, grace_s: float) -> None:
        """Stop answering, give running handlers `grace_s` to end, then break them; close all channels."""

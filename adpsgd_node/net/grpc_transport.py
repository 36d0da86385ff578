"""Carry the daemon's messages over gRPC: one server, one warm channel per peer, messages as opaque bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc.aio

from adpsgd_node.errors import BindError, DeadlineError, TransportError, UnreachableError
from adpsgd_node.ids import Address
from adpsgd_node.net.channel import ChannelCache
from adpsgd_node.net.credentials import Credentials, split_address
from adpsgd_node.net.grpc_handler import HandlerSet
from adpsgd_node.net.grpc_stream import CallerStream
from adpsgd_node.net.option import LinkConfig, server_options
from adpsgd_node.net.rpc_error import RPC_FAILURES, failed_call, task_is_cancelled
from adpsgd_node.net.transport import ConverseHandler, Method, Stream, StreamMethod, Transport, UnaryHandler
from adpsgd_node.wire import limits

__all__ = ["GrpcTransport"]


class GrpcTransport(Transport):
    """One node's gRPC server and channels; belongs to the event loop that first uses it."""

    def __init__(
        self, listen: Address, *, credentials: Credentials | None = None, config: LinkConfig | None = None
    ) -> None:
        """`listen` is `host:port`; port 0 picks a free one. Raises `ConfigError` for an exposed port not accepted."""
        self._listen = listen
        self._credentials = credentials or Credentials()
        self._credentials.check(listen)
        self._config = config or LinkConfig()
        self._channels = ChannelCache(self._credentials, self._config)
        self._server: grpc.aio.Server | None = None
        self._handlers = HandlerSet({}, {})

    async def serve(
        self, unary: Mapping[Method, UnaryHandler], streams: Mapping[StreamMethod, ConverseHandler]
    ) -> Address:
        assert self._server is None, "serve was called twice"
        handlers = HandlerSet(unary, streams)
        server = grpc.aio.server(
            handlers=handlers.grpc_handlers(),
            options=server_options(self._config),
            maximum_concurrent_rpcs=self._config.max_concurrent_calls,
        )
        try:
            port = self._credentials.bind(server, self._listen)
        except RuntimeError as error:
            raise self._bind_error() from error
        if port == 0:
            raise self._bind_error()
        await server.start()
        self._server, self._handlers = server, handlers
        host, colon, _ = self._listen.rpartition(":")
        return Address(f"{host}{colon}{port}")

    async def call(self, peer: Address, method: Method, request: bytes, *, timeout_s: float) -> bytes:
        assert len(request) <= limits.MAX_MESSAGE_BYTES, f"{method.value}: a request of {len(request)} bytes"
        async with self._channels.lease(peer) as channel:
            try:
                answer: bytes = await channel.unary_unary(method.value)(
                    request, timeout=timeout_s, wait_for_ready=False
                )
            except asyncio.CancelledError as error:
                if task_is_cancelled():
                    raise
                raise failed_call(peer, method.value, error) from error
            except RPC_FAILURES as error:
                failure = failed_call(peer, method.value, error)
                self._note(peer, channel, failure)
                raise failure from error
            self._channels.answered(peer, channel)
        return answer

    async def open(self, peer: Address, method: StreamMethod) -> Stream:
        channel = await self._channels.acquire(peer)
        try:
            call = channel.stream_stream(method.value)(wait_for_ready=False)
        except RPC_FAILURES as error:
            self._channels.release(peer, channel)
            raise UnreachableError(f"{method.value} to {peer}: {error}") from error
        return CallerStream(
            call,
            f"{method.value} to {peer}",
            released=lambda: self._channels.release(peer, channel),
            unreachable=lambda: self._channels.retire(peer, channel),
        )

    def _note(self, peer: Address, channel: grpc.aio.Channel, failure: TransportError) -> None:
        """Give up a connection that seems to lead nowhere."""
        if isinstance(failure, DeadlineError):
            self._channels.silent(peer, channel)
        elif isinstance(failure, UnreachableError):
            self._channels.retire(peer, channel)
        else:
            self._channels.answered(peer, channel)

    async def close(self, *, grace_s: float) -> None:
        if self._server is not None:
            await self._server.stop(grace_s)
            await self._handlers.end()
        await self._channels.close()

    def _bind_error(self) -> BindError:
        _, port = split_address(self._listen)
        host_is_wrong = "the host is no address of this machine"
        why = f"port {port} is in use or {host_is_wrong}" if port else host_is_wrong
        return BindError(
            f"cannot listen on {self._listen}: {why}. Choose another with --listen host:port (port 0: any free one), "
            'or in a script with join(..., name="b", listen="127.0.0.1:0").'
        )

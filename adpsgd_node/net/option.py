"""Choose the channel options of clients and servers so that the two agree.

gRPC ignores options it does not know, so each one used here is a named constant of an allow-list; tests check that
this gRPC still knows them.
"""

from __future__ import annotations

from dataclasses import dataclass

from adpsgd_node.errors import ConfigError
from adpsgd_node.wire import limits

__all__ = ["ALLOWED_OPTIONS", "LinkConfig", "client_options", "server_options"]

ALLOWED_OPTIONS = frozenset(
    {
        "grpc.enable_http_proxy",
        "grpc.http2.max_pings_without_data",
        "grpc.http2.min_ping_interval_without_data_ms",
        "grpc.initial_reconnect_backoff_ms",
        "grpc.keepalive_permit_without_calls",
        "grpc.keepalive_time_ms",
        "grpc.keepalive_timeout_ms",
        "grpc.max_receive_message_length",
        "grpc.max_reconnect_backoff_ms",
        "grpc.max_send_message_length",
        "grpc.min_reconnect_backoff_ms",
        "grpc.so_reuseport",
        "grpc.use_local_subchannel_pool",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """How connections are kept, and how many."""

    keepalive_s: float = 20.0
    """Quiet time after which a connection is probed; at least 10 (gRPC's own floor on clients)."""
    keepalive_timeout_s: float = 10.0
    """Time a probe may stay unanswered before the connection counts as broken."""
    reconnect_initial_s: float = 0.1
    """First wait before a failed connection is tried again."""
    reconnect_max_s: float = 2.0
    """Longest such wait: a peer that came back is found within it."""
    connect_timeout_s: float = 5.0
    """Time one attempt to connect may take; shorter deadlines of single calls hold all the same."""
    max_channels: int = 64
    """Most warm connections; beyond it the one that was idle for longest is closed."""
    max_concurrent_calls: int = 256
    """Most calls and streams served at once; more are refused at once."""

    def __post_init__(self) -> None:
        if self.keepalive_s < _KEEPALIVE_FLOOR_S:
            raise ConfigError(f"keepalive_s is {self.keepalive_s}, gRPC allows no less than {_KEEPALIVE_FLOOR_S}")
        if min(self.max_channels, self.max_concurrent_calls) < 1:
            raise ConfigError("max_channels and max_concurrent_calls must be at least 1")


_KEEPALIVE_FLOOR_S = 10.0
_PING_TOLERANCE = 0.5  # clocks and queues shift pings, so a server allows them at this fraction of the floor


def client_options(config: LinkConfig) -> tuple[tuple[str, int], ...]:
    return _allowed(
        *_common_options(config),
        # peers are addressed directly; a proxy from the environment is meant for the web
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", _ms(config.reconnect_initial_s)),
        ("grpc.max_reconnect_backoff_ms", _ms(config.reconnect_max_s)),
        ("grpc.min_reconnect_backoff_ms", _ms(config.connect_timeout_s)),
        # a transport owns its connections; gRPC would share them between all channels of a process
        ("grpc.use_local_subchannel_pool", 1),
    )


def server_options(config: LinkConfig) -> tuple[tuple[str, int], ...]:
    return _allowed(
        *_common_options(config),
        # whatever interval a client may legally have; pinging more often would end its connection
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(_KEEPALIVE_FLOOR_S * _PING_TOLERANCE)),
        # with it a second process on the same port would silently take half of the connections
        ("grpc.so_reuseport", 0),
    )


def _common_options(config: LinkConfig) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.keepalive_time_ms", _ms(config.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _ms(config.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", limits.MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", limits.MAX_MESSAGE_BYTES),
    )


def _allowed(*options: tuple[str, int]) -> tuple[tuple[str, int], ...]:
    assert {name for name, _ in options} <= ALLOWED_OPTIONS, options
    return options


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

from __future__ import annotations

import mmap

import pytest
from grpc._cython import cygrpc

from adpsgd_node.errors import ConfigError
from adpsgd_node.net.option import ALLOWED_OPTIONS, LinkConfig, client_options, server_options
from adpsgd_node.wire import limits


def test_this_grpc_knows_every_option_for_it_ignores_those_it_does_not() -> None:
    with open(cygrpc.__file__, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library:
        unknown = {name for name in ALLOWED_OPTIONS if library.find(name.encode() + b"\0") < 0}
    assert not unknown


@pytest.mark.parametrize("keepalive_s", [10.0, 20.0, 300.0])
def test_every_server_accepts_the_pings_of_every_client(keepalive_s: float) -> None:
    client = dict(client_options(LinkConfig(keepalive_s=10.0)))
    server = dict(server_options(LinkConfig(keepalive_s=keepalive_s)))
    assert server["grpc.http2.min_ping_interval_without_data_ms"] <= client["grpc.keepalive_time_ms"]
    assert server["grpc.keepalive_permit_without_calls"] == client["grpc.keepalive_permit_without_calls"] == 1


@pytest.mark.parametrize("options", [client_options, server_options])
def test_messages_are_limited_both_ways(options: object) -> None:
    chosen = dict(options(LinkConfig()))  # type: ignore[operator]
    assert chosen["grpc.max_receive_message_length"] == limits.MAX_MESSAGE_BYTES
    assert chosen["grpc.max_send_message_length"] == limits.MAX_MESSAGE_BYTES


@pytest.mark.parametrize("config", [{"keepalive_s": 1.0}, {"max_channels": 0}, {"max_concurrent_calls": 0}])
def test_impossible_configuration_is_refused(config: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        LinkConfig(**config)  # type: ignore[arg-type]

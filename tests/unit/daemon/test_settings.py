"""The settings of a node: defaults that work, and refusals that name key, value and what was expected."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from adpsgd_node.config import compose, settings
from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.membership.config import PRESETS
from adpsgd_node.core.topology.choice import TOPOLOGIES
from adpsgd_node.daemon import settings as settings_module
from adpsgd_node.daemon.settings import (
    AlgorithmName,
    MembershipPreset,
    NodeConfig,
    PairingName,
    TopologyName,
    default_name,
    split_address,
)
from adpsgd_node.errors import ConfigError
from adpsgd_node.ids import valid_name
from adpsgd_node.setting import choice


def composed(**flags: object) -> NodeConfig:
    return compose(NodeConfig, None, flags, {})


def test_defaults_are_a_node_that_only_this_machine_reaches() -> None:
    config = composed()
    assert config.network.listen == "127.0.0.1:7400"
    assert config.network.http_address == "127.0.0.1:8400"
    assert not config.network.insecure
    assert config.network.seeds == ()
    assert config.exchange.codec is CodecName.FP32
    assert config.exchange.topology is TopologyName.COMPLETE
    assert (config.target.epochs, config.target.samples) == (None, None)
    assert valid_name(config.name)


def test_output_follows_run_and_name_unless_given() -> None:
    assert composed(run="r", name="n").folder == Path("runs/r/n")
    assert composed(output="elsewhere").folder == Path("elsewhere")


def test_every_kind_of_setting_is_read_from_text() -> None:
    config = composed(seeds="a:1, [::1]:2", codec="bf16", topology="custom", edges="a:b,b:c", epochs="2.5", seed="7")
    assert config.network.seeds == ("a:1", "[::1]:2")
    assert config.exchange.edges == (("a", "b"), ("b", "c"))
    assert (config.exchange.codec, config.target.epochs, config.seed) == (CodecName.BF16, 2.5, 7)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"name": "no/slash"}, "name = 'no/slash': expected 1 to 63 letters"),
        ({"run": ""}, "run = '': expected 1 to 63 letters"),
        ({"listen": "127.0.0.1"}, "listen = '127.0.0.1': expected host:port"),
        ({"listen": "127.0.0.1:70000"}, "listen = '127.0.0.1:70000': expected host:port"),
        ({"listen": "::1:7400"}, "listen = '::1:7400': expected host:port"),
        ({"listen": "10.0.0.1:7400"}, "listen = '10.0.0.1:7400': expected a loopback address, or --insecure"),
        ({"listen": "localhost.example:7400"}, "or --insecure"),
        ({"listen": "0.0.0.0:7400", "insecure": True}, "advertise = '': expected an address that peers can dial"),
        ({"advertise": "0.0.0.0:7400"}, "advertise = '0.0.0.0:7400': expected an address that peers can dial"),
        ({"advertise": "host:0"}, "advertise = 'host:0'"),
        ({"listen": "127.0.0.1:65000"}, "http = '': expected an address, as port 65000 + 1000 is above 65535"),
        ({"seeds": "a:1,b"}, "seeds = 'b': expected host:port"),
        ({"seeds": "a:0"}, "seeds = 'a:0': expected the port"),
        ({"seeds": "dns+a://a:0"}, "seeds = 'dns+a://a:0': expected the port"),
        (
            {"seeds": "dns+aaaa://a:1"},
            "expected host:port, dns+a://name:port (all addresses of the name) or dns+srv://",
        ),
        ({"outbound_only": True}, "seeds = '': expected a seed, as outbound_only is set"),
        ({"outbound_only": True, "seeds": "a:1"}, "seeds = 'a:1': expected a loopback address, or --insecure"),
        ({"seeds": ",".join(f"h{i}:1" for i in range(65))}, "seeds = '65 addresses': expected at most 64"),
        ({"join_timeout_s": "-1"}, "join_timeout_s = -1.0: expected 0 to 604800 (set by --join-timeout)"),
        (
            {"algorithm": "a-psgd"},
            "servers = '': expected 1 to 64 different node names, as algorithm = a-psgd keeps the parameters there",
        ),
        ({"servers": "a"}, "servers = 'a': expected nothing, as algorithm = ad-psgd has none"),
        ({"algorithm": "a-psgd", "servers": "a,a"}, "servers = 'a,a': expected 1 to 64 different node names"),
        ({"algorithm": "a-psgd", "servers": "a,b c"}, "servers = 'a,b c': expected 1 to 64 different node names"),
        (
            {"algorithm": "a-psgd", "servers": "w", "name": "w", "outbound_only": True, "seeds": "127.0.0.1:1"},
            "outbound_only = True: expected false, as this node is a server, and workers dial it",
        ),
        ({"algorithm": "allreduce"}, "world_size = 0: expected the number of nodes, 1 to 1024, as algorithm ="),
        ({"algorithm": "allreduce", "world_size": "1025"}, "world_size = 1025: expected the number of nodes"),
        ({"world_size": "3"}, "world_size = 3: expected 0, as algorithm = ad-psgd takes nodes in at any time"),
        (
            {"algorithm": "allreduce", "world_size": "2", "outbound_only": True, "seeds": "127.0.0.1:1"},
            "outbound_only = True: expected false, as with algorithm = allreduce all nodes dial each other",
        ),
        ({"topology": "rign"}, "expected one of complete, ring, exponential, hypercube, custom; did you mean ring?"),
        ({"topology": "custom"}, "edges = '': expected pairs of node names"),
        ({"edges": "a:b"}, "topology = complete: expected custom, as edges are given"),
        ({"topology": "custom", "edges": "a:a"}, "edges = 'a:a': expected the names of two different nodes"),
        ({"pairing": "bipartite"}, "pairing = bipartite: expected any, as topology = complete has no two sides"),
        (
            {"pairing": "bipartite", "topology": "custom", "edges": "x:a,a:b,b:c,c:a"},
            "pairing = bipartite: expected any, as edges join b, a, c to a cycle of odd length",
        ),
        (
            {"pairing": "bipartite", "topology": "ring", "algorithm": "d-psgd"},
            "pairing = bipartite: expected any, as algorithm = d-psgd pairs its nodes in its own way",
        ),
        ({"codec": "fp16"}, "codec = 'fp16': expected one of fp32, bf16"),
        ({"chunk_bytes": "1024"}, "chunk_bytes = 1024: expected 4096 to 16777216"),
        ({"chunk_bytes": "5000"}, "chunk_bytes = 5000: expected a multiple of 4096, e.g. 4096"),
        ({"window": "65"}, "window = 65: expected 1 to 64"),
        ({"max_inbound": "3"}, "max_inbound = 3: expected 1 to 2"),
        ({"exchanges_per_step": "0"}, "exchanges_per_step = 0.0: expected a number above 0"),
        ({"epochs": "0"}, "epochs = 0.0: expected a number above 0"),
        ({"samples": "0"}, "samples = 0: expected a whole number above 0"),
        ({"epochs": "1", "samples": "5"}, "samples = 5: expected nothing, as epochs = 1 is given"),
        ({"tolerance": "2"}, "tolerance = 2.0: expected a number above 0, at most 1"),
        ({"max_restarts": "-1"}, "max_restarts = -1: expected 0 to 1000"),
        ({"seed": "-1"}, "seed = -1: expected 0 to"),
    ],
)
def test_unusable_setting_is_refused_by_name(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        composed(**flags)


@pytest.mark.parametrize(
    "graph", [{"topology": "ring"}, {"topology": "hypercube"}, {"topology": "custom", "edges": "a:b,b:c,c:d,d:a"}]
)
def test_graphs_that_have_two_sides_can_be_split(graph: dict[str, Any]) -> None:
    assert composed(pairing="bipartite", **graph).exchange.pairing is PairingName.BIPARTITE
    assert composed(**graph).exchange.pairing is PairingName.ANY


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_loopback_needs_no_permission(host: str) -> None:
    assert composed(listen=f"{host}:7400").network.http_address == f"{host}:8400"


def test_each_form_of_a_seed_is_kept_as_it_was_given() -> None:
    seeds = ("a:1", "dns+a://b.example:2", "dns+srv://_gossip._tcp.c")
    assert composed(seeds=",".join(seeds)).network.seeds == seeds


def test_outbound_only_node_needs_no_address_that_others_can_dial() -> None:
    network = composed(listen="0.0.0.0:7400", outbound_only=True, seeds="a:1", insecure=True).network
    assert network.advertise == ""


def test_port_zero_leaves_the_http_port_to_the_system_too() -> None:
    assert composed(listen="127.0.0.1:0").network.http_address == "127.0.0.1:0"


def test_beyond_this_machine_with_permission_and_address() -> None:
    config = composed(listen="0.0.0.0:7400", advertise="node-1.example:7400", insecure=True)
    assert config.network.http_address == "0.0.0.0:8400"


@pytest.mark.parametrize("hostname", ["Box_1.example", "-odd-", "ä ö", "x" * 80, "..."])
def test_default_name_is_valid_whatever_the_host_is_called(hostname: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: hostname)
    assert valid_name(default_name())


def test_address_is_cut_at_the_port() -> None:
    assert split_address("listen", "[fe80::1]:9") == ("fe80::1", 9)


def test_names_of_settings_are_unique() -> None:
    names = [setting.name for setting in settings(NodeConfig)]
    assert len(names) == len(set(names))
    assert len({setting.flag for setting in settings(NodeConfig)}) == len(names)


def test_names_offered_here_are_those_known_in_the_core() -> None:
    assert {choice(name) for name in TopologyName} == set(TOPOLOGIES)
    assert {choice(name) for name in MembershipPreset} == set(PRESETS)
    assert choice(AlgorithmName.AD_PSGD) == "ad-psgd"


def test_chunk_limit_is_the_one_of_the_wire() -> None:
    from adpsgd_node.wire import limits

    assert limits.MAX_CHUNK_BYTES == settings_module.MAX_CHUNK_BYTES


def test_only_with_allreduce_a_script_that_died_is_never_started_again() -> None:
    assert composed(max_restarts="5").max_restarts == 5
    assert composed(max_restarts="5", algorithm="allreduce", world_size="2").max_restarts == 0

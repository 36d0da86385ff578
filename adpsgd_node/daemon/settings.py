"""Hold the settings of one node; `config.compose` fills them from a TOML file, `ADPSGD_*` and flags."""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path

from adpsgd_node import address
from adpsgd_node.core.algorithms.a_psgd import MAX_SERVERS
from adpsgd_node.core.algorithms.world import MAX_WORLD
from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.core.topology import split
from adpsgd_node.core.topology.custom import Custom
from adpsgd_node.daemon.beyond import BeyondConfig
from adpsgd_node.daemon.handicap import HandicapConfig
from adpsgd_node.ids import MAX_NAME_LENGTH, Address, valid_name
from adpsgd_node.seed import MAX_SEEDS, SEED_FORMS, SeedKind, parse_seed
from adpsgd_node.setting import SettingError, choice
from adpsgd_node.wire.limits import MAX_WINDOW

__all__ = [
    "AlgorithmName",
    "CheckpointConfig",
    "ExchangeConfig",
    "JoiningConfig",
    "MembershipPreset",
    "NetworkConfig",
    "NodeConfig",
    "PairingName",
    "TargetConfig",
    "TopologyName",
    "TrainerConfig",
    "default_name",
    "split_address",
]

DEFAULT_LISTEN = Address("127.0.0.1:7400")
NO_ADDRESS = Address("")

HTTP_PORT_OFFSET = 1000
"""Without a setting of its own the HTTP server listens this far above the gRPC port."""

MIN_CHUNK_BYTES = 4 << 10
MAX_CHUNK_BYTES = 16 << 20
CHUNK_ALIGNMENT_BYTES = 4096
MAX_INBOUND = 2
"""A node in k overlapping exchanges has eigenvalue (1-k)/2; with one outbound and three inbound it would diverge."""
MAX_EXCHANGES_PER_STEP = 16.0
MAX_EDGES = 100_000
MAX_RESTARTS = 1000
MAX_DONORS = 16
MIN_DONOR_BYTES_PER_S = 64 << 10
MAX_DONOR_BYTES_PER_S = 1 << 40
MAX_CHECKPOINTS = 100
MAX_SEED = (1 << 63) - 1
MAX_WAIT_S = 7 * 24 * 3600.0
"""Longest time any setting may ask to wait for."""


class AlgorithmName(enum.Enum):
    AD_PSGD = enum.auto()
    D_PSGD = enum.auto()
    A_PSGD = enum.auto()
    ALLREDUCE = enum.auto()


class TopologyName(enum.Enum):
    COMPLETE = enum.auto()
    RING = enum.auto()
    EXPONENTIAL = enum.auto()
    HYPERCUBE = enum.auto()
    CUSTOM = enum.auto()


class PairingName(enum.Enum):
    """Who starts exchanges."""

    ANY = enum.auto()
    BIPARTITE = enum.auto()


class MembershipPreset(enum.Enum):
    """How patient the failure detector is; `core.membership.config` has the numbers."""

    LOCAL = enum.auto()
    LAN = enum.auto()
    WAN = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Where a node listens and whom it asks to be let in."""

    listen: Address = DEFAULT_LISTEN
    """`host:port` of the gRPC server; port 0 lets the system choose one."""
    advertise: Address = NO_ADDRESS
    """`host:port` that peers dial; empty: the bound address. Needed when listening on all interfaces."""
    http: Address = NO_ADDRESS
    """`host:port` of /metrics, /healthz and /readyz; empty: host of `listen`, its port + 1000 (0 stays 0)."""
    seeds: tuple[str, ...] = ()
    """Nodes to join through, at most 64; one live one is enough: `host:port`, `dns+a://name:port` (all addresses of the
    name) or `dns+srv://_gossip._tcp.name`. Empty: start a run of one's own."""
    insecure: bool = False
    """Allow peers beyond this machine although the connection is neither encrypted nor authenticated."""
    join_timeout_s: float = 300.0
    """Seconds to look for a live seed before giving up; 0: for ever."""
    outbound_only: bool = False
    """Nobody can dial this node (NAT, firewall): it only calls others, and starts every exchange itself."""
    membership: MembershipPreset = MembershipPreset.LAN
    """Failure detector's times: `local` (one machine), `lan`, or `wan`."""

    def __post_init__(self) -> None:
        host, port = split_address("listen", self.listen)
        if not self.insecure and not address.is_loopback(host):
            raise SettingError("listen", self.listen, "a loopback address, or --insecure: traffic is not encrypted yet")
        if self.advertise:
            advertised_host, advertised_port = split_address("advertise", self.advertise)
            if advertised_port == 0 or _is_wildcard(advertised_host):
                raise SettingError("advertise", self.advertise, "an address that peers can dial, with its port")
        elif _is_wildcard(host) and not self.outbound_only:  # nobody dials that one, whatever it says
            raise SettingError("advertise", "", f"an address that peers can dial, as listen = {self.listen} is not one")
        if self.http:
            split_address("http", self.http)
        elif port + HTTP_PORT_OFFSET > 65535:
            raise SettingError("http", "", f"an address, as port {port} + {HTTP_PORT_OFFSET} is above 65535")
        if len(self.seeds) > MAX_SEEDS:
            raise SettingError("seeds", f"{len(self.seeds)} addresses", f"at most {MAX_SEEDS}; one live seed is enough")
        for seed in self.seeds:
            _check_seed(seed, dialed_by_outbound_only=self.outbound_only and not self.insecure)
        if self.outbound_only and not self.seeds:
            raise SettingError("seeds", "", "a seed, as outbound_only is set: nobody can call this node")
        _check_range("join_timeout_s", self.join_timeout_s, 0, MAX_WAIT_S)

    @property
    def http_address(self) -> Address:
        """Where the HTTP server is to listen."""
        if self.http:
            return self.http
        host, port = split_address("listen", self.listen)
        return Address(f"{f'[{host}]' if ':' in host else host}:{port + HTTP_PORT_OFFSET if port else 0}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeConfig:
    """With whom a node averages, how its parameters travel, and at what pace."""

    topology: TopologyName = TopologyName.COMPLETE
    """Graph over the live members: complete, ring, exponential, hypercube or custom; the same on every node."""
    edges: tuple[tuple[str, str], ...] = ()
    """Node names joined in the custom topology: `a:b,b:c`, in TOML `[["a", "b"], ["b", "c"]]`."""
    pairing: PairingName = PairingName.ANY
    """Who starts exchanges: `any` node, or, with `bipartite`, those of one side of the graph, while those of the other
    only answer, and each is in one exchange at a time. For ad-psgd; the same on every node."""
    codec: CodecName = CodecName.FP32
    """How chunks travel: `fp32`, or `bf16` at half the bytes."""
    chunk_bytes: int = 1 << 20
    """Bytes of fp32 in a full chunk: 4 KiB to 16 MiB, a multiple of 4096; the same on every node."""
    window: int = 6
    """Chunks an initiator sends ahead of the answers, 1 to 64."""
    max_inbound: int = 2
    """Exchanges served for peers at one time, 1 or 2; more are declined as busy."""
    exchanges_per_step: float = 1.0
    """Exchanges started per local step when the network keeps up; above 0, at most 16."""
    clip_exchange: float = 0.0
    """Move no chunk by more than this part of the smaller side's norm in one exchange; 0: no bound, at most 1."""

    def __post_init__(self) -> None:
        if self.topology is TopologyName.CUSTOM and not self.edges:
            raise SettingError("edges", "", "pairs of node names such as a:b,b:c for topology = custom")
        if self.edges and self.topology is not TopologyName.CUSTOM:
            raise SettingError("topology", self.topology, "custom, as edges are given")
        if len(self.edges) > MAX_EDGES:
            raise SettingError("edges", f"{len(self.edges)} pairs", f"at most {MAX_EDGES}")
        for one, other in self.edges:
            if not (valid_name(one) and valid_name(other)) or one == other:
                raise SettingError("edges", f"{one}:{other}", "the names of two different nodes in each pair")
        self._check_pairing()
        _check_range("chunk_bytes", self.chunk_bytes, MIN_CHUNK_BYTES, MAX_CHUNK_BYTES)
        if self.chunk_bytes % CHUNK_ALIGNMENT_BYTES:
            below = self.chunk_bytes // CHUNK_ALIGNMENT_BYTES * CHUNK_ALIGNMENT_BYTES
            raise SettingError("chunk_bytes", self.chunk_bytes, f"a multiple of {CHUNK_ALIGNMENT_BYTES}, e.g. {below}")
        _check_range("window", self.window, 1, MAX_WINDOW)
        _check_range("max_inbound", self.max_inbound, 1, MAX_INBOUND)
        _check_range("clip_exchange", self.clip_exchange, 0, 1)
        if not 0 < self.exchanges_per_step <= MAX_EXCHANGES_PER_STEP:
            expected = f"a number above 0, at most {MAX_EXCHANGES_PER_STEP:g}"
            raise SettingError("exchanges_per_step", self.exchanges_per_step, expected)

    def _check_pairing(self) -> None:
        if self.pairing is not PairingName.BIPARTITE:
            return
        if self.topology is TopologyName.COMPLETE:
            expected = "any, as topology = complete has no two sides for more than two nodes; or topology = ring"
            raise SettingError("pairing", self.pairing, expected)
        if self.topology is TopologyName.CUSTOM:
            edges = Custom(",".join(f"{one}:{other}" for one, other in self.edges))
            if cycle := split(edges, edges.names).odd_cycle:
                expected = f"any, as edges join {', '.join(cycle)} to a cycle of odd length, which has no two sides"
                raise SettingError("pairing", self.pairing, expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoiningConfig:
    """How a joining node fetches the model, and what giving it may cost this one."""

    donors: int = 3
    """Peers the model is fetched from at once, 1 to 16."""
    donor_bytes_per_s: int = 32 << 20
    """Most bytes of the model this node gives to all joiners together in a second, 64 KiB or more."""

    def __post_init__(self) -> None:
        _check_range("donors", self.donors, 1, MAX_DONORS)
        _check_range("donor_bytes_per_s", self.donor_bytes_per_s, MIN_DONOR_BYTES_PER_S, MAX_DONOR_BYTES_PER_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """What this node keeps on disk, and when it starts from it."""

    checkpoint_interval_s: float = 300.0
    """Seconds between two checkpoints while training; 0: only on demand and when the node drains."""
    checkpoint_keep: int = 2
    """Checkpoints kept, 1 to 100; older ones are removed."""
    checkpoints: Path | None = None
    """Folder of the checkpoints; empty: `checkpoints` in the output folder."""
    cold_start_timeout_s: float = 30.0
    """Seconds to wait, when nobody has a live model, for nodes that may have one or a newer checkpoint; 0: none."""

    def __post_init__(self) -> None:
        _check_range("checkpoint_interval_s", self.checkpoint_interval_s, 0, MAX_WAIT_S)
        _check_range("checkpoint_keep", self.checkpoint_keep, 1, MAX_CHECKPOINTS)
        _check_range("cold_start_timeout_s", self.cold_start_timeout_s, 0, MAX_WAIT_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """When the run as a whole is done."""

    epochs: float | None = None
    """Passes over the data set by all nodes together; empty: the script's own default."""
    samples: int | None = None
    """Samples of all nodes together, instead of `epochs`; with neither, training ends when the script does."""
    tolerance: float = 1e-3
    """Relative consensus distance below which two models count as equal."""
    finish_timeout_s: float = 60.0
    """Seconds to wait at the end for the models to agree; then each node writes what it has, and says so."""
    stay: bool = False
    """Stay when the script has ended well, and serve status, metrics and the model, until told to stop."""

    def __post_init__(self) -> None:
        if self.epochs is not None and self.samples is not None:
            raise SettingError("samples", self.samples, f"nothing, as epochs = {self.epochs:g} is given: choose one")
        if self.epochs is not None and not self.epochs > 0:
            raise SettingError("epochs", self.epochs, "a number above 0")
        if self.samples is not None and self.samples < 1:
            raise SettingError("samples", self.samples, "a whole number above 0")
        if not 0 < self.tolerance <= 1:
            raise SettingError("tolerance", self.tolerance, "a number above 0, at most 1")
        _check_range("finish_timeout_s", self.finish_timeout_s, 0, MAX_WAIT_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """How the user's script is looked after."""

    max_restarts: int = 3
    """Times the script is started again after it died, 0 to 1000."""
    poison_timeout_s: float = 300.0
    """Seconds until a node ends whose loss or parameters stay non-finite; 0: never."""

    def __post_init__(self) -> None:
        _check_range("max_restarts", self.max_restarts, 0, MAX_RESTARTS)
        _check_range("poison_timeout_s", self.poison_timeout_s, 0, MAX_WAIT_S)


def default_name() -> str:
    """Make a valid node name of this host's name."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname())[:MAX_NAME_LENGTH].strip("._-")
    return text or "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Everything a node can be told."""

    name: str = field(default_factory=default_name)
    """This node's name in the run, one live node each; default: the host's name. Several on one host need names."""
    run: str = "default"
    """Name of the training job; nodes of different runs refuse each other."""
    output: Path | None = None
    """Folder for the model and results; empty: `runs/<run>/<name>`."""
    algorithm: AlgorithmName = AlgorithmName.AD_PSGD
    """What a step waits for: `ad-psgd` for nothing, `d-psgd` for mixing with all neighbors, `a-psgd` for the parameter
    servers, `allreduce` for the average gradient of all nodes; the same on every node."""
    servers: tuple[str, ...] = ()
    """Names of the nodes that serve the parameters with `a-psgd`, each a part; they train, too. At most 64, the same
    and in the same order on every node."""
    world_size: int = 0
    """Nodes of the whole run, which `allreduce` must know: none can join later, and none be spared. 0: any number."""
    seed: int = 0
    """Of this node's random choices, mixed with its name, so that all nodes may be given the same one."""
    drain_timeout_s: float = 30.0
    """Seconds that leaving may take (SIGTERM, `adpsgd-node drain`): last exchange, settling, checkpoint."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    exchange: ExchangeConfig = field(default_factory=ExchangeConfig)
    joining: JoiningConfig = field(default_factory=JoiningConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    handicap: HandicapConfig = field(default_factory=HandicapConfig)
    beyond: BeyondConfig = field(default_factory=BeyondConfig)

    def __post_init__(self) -> None:
        for key, text in (("name", self.name), ("run", self.run)):
            if not valid_name(text):
                expected = f"1 to {MAX_NAME_LENGTH} letters, digits, '.', '_', '-'; a letter or digit at both ends"
                raise SettingError(key, text, expected)
        if self.exchange.pairing is not PairingName.ANY and self.algorithm is not AlgorithmName.AD_PSGD:
            expected = f"any, as algorithm = {choice(self.algorithm)} pairs its nodes in its own way"
            raise SettingError("pairing", self.exchange.pairing, expected)
        self._check_world()
        self._check_servers()
        self.beyond.check(choice(self.algorithm))
        _check_range("seed", self.seed, 0, MAX_SEED)
        _check_range("drain_timeout_s", self.drain_timeout_s, 1, MAX_WAIT_S)

    def _check_world(self) -> None:
        if self.algorithm is not AlgorithmName.ALLREDUCE:
            if self.world_size:
                expected = f"0, as algorithm = {choice(self.algorithm)} takes nodes in at any time"
                raise SettingError("world_size", self.world_size, expected)
            return
        if not 1 <= self.world_size <= MAX_WORLD:
            expected = f"the number of nodes, 1 to {MAX_WORLD}, as algorithm = allreduce must know it"
            raise SettingError("world_size", self.world_size, expected)
        if self.network.outbound_only:
            raise SettingError("outbound_only", True, "false, as with algorithm = allreduce all nodes dial each other")

    def _check_servers(self) -> None:
        names = ",".join(self.servers)
        if self.algorithm is not AlgorithmName.A_PSGD:
            if self.servers:
                raise SettingError("servers", names, f"nothing, as algorithm = {choice(self.algorithm)} has none")
            return
        different = len(set(self.servers)) == len(self.servers) and all(map(valid_name, self.servers))
        if not (1 <= len(self.servers) <= MAX_SERVERS and different):
            expected = f"1 to {MAX_SERVERS} different node names, as algorithm = a-psgd keeps the parameters there"
            raise SettingError("servers", names, expected)
        if self.network.outbound_only and self.name in self.servers:
            raise SettingError("outbound_only", True, "false, as this node is a server, and workers dial it")

    @property
    def max_restarts(self) -> int:
        """Times the script may be started again: with allreduce never, as the others are in the middle of a step."""
        return 0 if self.algorithm is AlgorithmName.ALLREDUCE else self.trainer.max_restarts

    @property
    def folder(self) -> Path:
        """Where this node writes."""
        return self.output if self.output is not None else Path("runs") / self.run / self.name


def split_address(key: str, text: str) -> tuple[str, int]:
    """Cut `host:port` in two. Raises `SettingError` naming the setting `key`."""
    try:
        return address.split_address(text)
    except ValueError:
        raise SettingError(key, text, address.ADDRESS_FORM) from None


def _check_seed(text: str, *, dialed_by_outbound_only: bool) -> None:
    try:
        seed = parse_seed(text)
    except ValueError:
        raise SettingError("seeds", text, SEED_FORMS) from None
    if seed.port == 0 and seed.kind is not SeedKind.SERVICE:
        raise SettingError("seeds", text, "the port that the seed listens on")
    if dialed_by_outbound_only and not address.is_loopback(seed.host):
        # Other nodes are kept at home by their loopback address alone; this one does not need to be reached.
        raise SettingError("seeds", text, "a loopback address, or --insecure: traffic is not encrypted yet")


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _check_range(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SettingError(key, value, f"{low:g} to {high:g}" if high < 1e6 else f"{low} to {high}")

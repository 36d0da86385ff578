"""Set the times and limits of membership."""

from __future__ import annotations

from dataclasses import dataclass, fields

from adpsgd_node.errors import ConfigError

__all__ = [
    "MAX_MEMBERS",
    "MAX_PROGRESS_PER_PACKET",
    "MAX_TOMBSTONES",
    "MAX_UPDATES_PER_PACKET",
    "PRESETS",
    "MembershipConfig",
    "membership_preset",
]

MAX_MEMBERS = 4096
"""Highest setting of `max_members`: a join's answer lists them all in one message."""

MAX_TOMBSTONES = 1024
"""Highest setting of `max_tombstones`, for the same reason."""

MAX_UPDATES_PER_PACKET = 64
"""Highest setting of `updates_per_packet`; a receiver takes no more."""

MAX_PROGRESS_PER_PACKET = 64
"""Highest setting of `progress_per_packet`; a receiver takes no more, and the sender's own entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipConfig:
    """Times and limits of SWIM; the defaults are those of a local network (`lan`)."""

    probe_interval_s: float = 1.0
    """Seconds between two probes a node starts; each goes to the next member of a shuffled round."""
    ack_timeout_s: float = 0.5
    """Seconds to wait for a direct ack before relays are asked. May exceed the probe interval: probes overlap."""
    indirect_timeout_s: float = 1.0
    """Further seconds to wait for an ack through a relay before the member is suspected; half way, others are asked."""
    relays: int = 3
    """Members asked to ping a silent one, each time; 0 switches indirect probes off."""
    suspicion_multiplier: float = 1.5
    """A suspect has at least `multiplier * max(1, log10(members)) * probe_interval_s` seconds to refute."""
    minimum_suspicion_s: float = 4.0
    """The least time a suspect has to refute, in seconds."""
    suspicion_max_factor: float = 6.0
    """A suspect that only one member finds silent has this many times the least time; 1 or more."""
    suspicion_confirmations: int = 2
    """Further members that must find a suspect silent before it has only the least time; 0: it never has more."""
    pause_tolerance_s: float = 1.0
    """A timer later than this many seconds shows that this node itself stood still: it then judges nobody by it."""
    retransmit_multiplier: int = 4
    """Each node sends one piece of news at most `multiplier * ceil(log10(members + 1))` times, at least twice that."""
    updates_per_packet: int = 64
    """Most pieces of news in one packet."""
    progress_per_packet: int = 16
    """Most progress entries of other nodes in one packet; the own one always travels too."""
    max_queued_updates: int = 1024
    """Most pieces of news waiting to be sent; the most often sent one makes room."""
    max_members: int = 4096
    """Most live members of a run, this node included; joins beyond it are refused."""
    max_tombstones: int = 1024
    """Most dead and departed members remembered; the oldest makes room."""
    tombstone_s: float = 3600.0
    """Seconds a dead or departed member is remembered, so that old news cannot bring it back."""
    max_relayed_pings: int = 256
    """Most pings this node has out on behalf of others; requests beyond it are dropped."""
    sync_interval_s: float = 30.0
    """Seconds between two comparisons of all that is known with a random member; longer in a run of more than 32."""
    reconnect_interval_s: float = 3.0
    """Seconds between two attempts to reach members held dead, and seeds that are no live members: heals partitions.
    Longer in a run of more than 16, so that a dead member's address gets no more pings the more nodes there are."""
    join_answer_timeout_s: float = 5.0
    """Seconds a seed has to answer a join before the next one is asked."""
    join_backoff_min_s: float = 0.25
    """Seconds before all seeds are asked again, the first time; doubled each time, less a random part."""
    join_backoff_max_s: float = 10.0
    """The longest such wait, in seconds."""
    leave_announcements: int = 4
    """Members told at once when this node leaves; gossip tells the others."""

    def __post_init__(self) -> None:
        may_be_zero = {"relays", "suspicion_confirmations"}
        for field in fields(self):
            value = getattr(self, field.name)
            if not (value > 0 or (value == 0 and field.name in may_be_zero)):
                raise ConfigError(f"membership.{field.name} is {value}: give it a number above 0.")
        for name, limit in _CEILINGS.items():
            if getattr(self, name) > limit:
                raise ConfigError(f"membership.{name} is {getattr(self, name)}: at most {limit} is possible.")
        if not self.suspicion_max_factor >= 1:
            raise ConfigError(f"membership.suspicion_max_factor is {self.suspicion_max_factor}: give it 1 or more.")
        if self.join_backoff_max_s < self.join_backoff_min_s:
            raise ConfigError(
                f"membership.join_backoff_max_s ({self.join_backoff_max_s}) is below join_backoff_min_s "
                f"({self.join_backoff_min_s}): raise it."
            )


_CEILINGS = {
    "max_members": MAX_MEMBERS,
    "max_tombstones": MAX_TOMBSTONES,
    "updates_per_packet": MAX_UPDATES_PER_PACKET,
    "progress_per_packet": MAX_PROGRESS_PER_PACKET,
}

PRESETS: dict[str, MembershipConfig] = {
    # Several nodes on one machine, busy trainers on few cores: quick to probe, slow to judge.
    "local": MembershipConfig(
        probe_interval_s=0.2,
        ack_timeout_s=0.5,
        indirect_timeout_s=0.5,
        suspicion_multiplier=6.0,
        minimum_suspicion_s=3.0,
        suspicion_max_factor=3.0,
        sync_interval_s=10.0,
        reconnect_interval_s=1.0,
        join_answer_timeout_s=2.0,
        join_backoff_min_s=0.1,
        join_backoff_max_s=2.0,
    ),
    "lan": MembershipConfig(),
    "wan": MembershipConfig(
        probe_interval_s=5.0,
        ack_timeout_s=3.0,
        indirect_timeout_s=3.0,
        suspicion_multiplier=3.0,
        minimum_suspicion_s=15.0,
        suspicion_max_factor=4.0,
        sync_interval_s=60.0,
        pause_tolerance_s=2.0,
        reconnect_interval_s=10.0,
        join_answer_timeout_s=10.0,
        join_backoff_min_s=1.0,
        join_backoff_max_s=30.0,
    ),
}
"""The ready-made settings, by name."""


def membership_preset(name: str) -> MembershipConfig:
    """Return the preset called `name`. Raises `ConfigError` naming the known ones."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigError(f"unknown membership preset {name!r}: choose one of {', '.join(sorted(PRESETS))}.") from None

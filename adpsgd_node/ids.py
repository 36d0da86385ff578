"""Name the things that cross a wire: who a node is, which run, which protocol.

A node is its name *and* its boot: pods come back with the same name and a new address, or a new pod gets a dead
one's address, so neither alone identifies a process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

__all__ = ["MAX_BOOT", "MAX_NAME_LENGTH", "PROTOCOL_VERSION", "Address", "NodeId", "RunId", "SchemaHash", "valid_name"]

PROTOCOL_VERSION = 1
"""Version of the peer protocol; nodes with different versions refuse each other by name."""

MAX_NAME_LENGTH = 63
"""Longest node or run name, in characters (that of a DNS label)."""

MAX_BOOT = (1 << 63) - 1
"""Largest boot number: what a file or a peer says beyond it is not believed."""

Address = NewType("Address", str)
"""`host:port` of a node's gRPC server; IPv6 hosts in brackets."""

RunId = NewType("RunId", str)
"""Name of one training job."""

SchemaHash = NewType("SchemaHash", bytes)
"""SHA-256 over names, shapes, dtypes and segments of all exchanged tensors: 32 bytes."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class NodeId:
    """One life of one node."""

    name: str
    boot: int
    """Larger for a later life of the same name."""

    def __str__(self) -> str:
        return f"{self.name}#{self.boot}"


def valid_name(text: str) -> bool:
    """Tell whether `text` may name a node or a run: letters, digits, `.`, `_`, `-`; at most 63 characters."""
    return len(text) <= MAX_NAME_LENGTH and _NAME.fullmatch(text) is not None

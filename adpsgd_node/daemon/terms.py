"""Say how a run is trained: all its nodes must be told the same."""

from __future__ import annotations

from adpsgd_node.daemon.settings import NodeConfig
from adpsgd_node.setting import choice
from adpsgd_node.wire.limits import MAX_DETAIL_LENGTH

__all__ = ["terms_of"]


def terms_of(config: NodeConfig) -> str:
    """Write the options that all nodes share: shown to people, and compared when a node asks for the model."""
    words = [f"--algorithm {choice(config.algorithm)}"]
    if config.servers:
        words.append(f"--servers {','.join(config.servers)}")
    if config.beyond.acceleration:
        words.append("--acceleration")
    if config.beyond.rate_correction:
        words.append(f"--rate-correction {config.beyond.rate_correction:g}")
    return " ".join(words)[:MAX_DETAIL_LENGTH]

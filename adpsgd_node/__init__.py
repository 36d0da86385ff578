"""adpsgd-node: asynchronous decentralized parallel SGD as a peer-to-peer training daemon.

    with adpsgd_node.join(model, optimizer, batch_size=32) as node: ...

The names below are loaded at first use, so that importing the package (as the daemon does) does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adpsgd_node.trainer.join import join
    from adpsgd_node.trainer.node import Node
    from adpsgd_node.trainer.progress import Progress, Result

__all__ = ["Node", "Progress", "Result", "join"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module("adpsgd_node.trainer"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

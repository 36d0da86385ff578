"""Make the output folder, and find out now whether it can be written: after hours of training it would be too late."""

from __future__ import annotations

import tempfile
from pathlib import Path

from adpsgd_node.errors import ConfigError

__all__ = ["check_writable"]


def check_writable(folder: Path) -> None:
    """Make the folder if need be. Raises `ConfigError` when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"output = {folder}: cannot write there ({error.strerror}); choose another folder with --output"
        ) from None

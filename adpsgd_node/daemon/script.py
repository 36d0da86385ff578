"""Say what `up` is to run, under the daemon's own Python."""

from __future__ import annotations

import sys
from dataclasses import dataclass

__all__ = ["Script"]


@dataclass(frozen=True, slots=True)
class Script:
    """A training script as a command line."""

    name: str
    """What the user called it."""
    argv: tuple[str, ...]

    @classmethod
    def of(cls, arguments: tuple[str, ...]) -> Script:
        """Run what `python ARGUMENTS...` would; the CLI has seen to it that the file or module exists."""
        return cls(" ".join(arguments), (sys.executable, *arguments))

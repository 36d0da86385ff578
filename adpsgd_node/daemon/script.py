"""Say what `up` is to run: a file or a module, under the daemon's own Python."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from adpsgd_node.errors import TrainerError

__all__ = ["Script"]


@dataclass(frozen=True, slots=True)
class Script:
    """A training script as a command line."""

    name: str
    """What the user called it."""
    argv: tuple[str, ...]

    @classmethod
    def file(cls, path: str, arguments: tuple[str, ...] = ()) -> Script:
        """Run a Python file. Raises `TrainerError` when there is none."""
        if Path(path).is_dir():
            raise TrainerError(f"script {path} is a directory; name the Python file to run, or use -m for a package")
        if not Path(path).is_file():
            raise TrainerError(f"script {path} not found in {Path.cwd()}; give its path, or use -m for a module")
        return cls(path, (sys.executable, path, *arguments))

    @classmethod
    def module(cls, module: str, arguments: tuple[str, ...] = ()) -> Script:
        """Run a module as `python -m` does. Raises `TrainerError` when its top-level package is not installed."""
        # Looking deeper would import the parent packages, and with them whatever they import.
        top = module.partition(".")[0]
        # The script's Python searches the current folder too; a console script's own Python does not.
        found = top.isidentifier() and (find_spec(top) or PathFinder.find_spec(top, [""]))
        if not found:
            raise TrainerError(f"module {module} not found: no package {top}; install it, or run from its folder")
        return cls(module, (sys.executable, "-m", module, *arguments))

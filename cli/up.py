"""Start a node: the daemon and, under it, the user's script."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from adpsgd_node.config import compose, config_path, quiet_grpc
from adpsgd_node.daemon.settings import NodeConfig
from adpsgd_node.errors import ConfigError

__all__ = ["DEFAULT_SCRIPT", "find_script", "up"]

DEFAULT_SCRIPT = ("-m", "adpsgd_node.tasks.digits")


def up(
    script: Annotated[
        str | None,
        typer.Argument(metavar="SCRIPT", help="Python script to run; default: the digits task.", show_default=False),
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", help="Passed on to the script untouched.", show_default=False),
    ] = None,
    module: Annotated[bool, typer.Option("-m", help="SCRIPT is a module's name, as with python -m.")] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE.toml", help="Settings; ADPSGD_* outweighs them, options outweigh both."),
    ] = None,
    trainer_fd: Annotated[int | None, typer.Option("--trainer-fd", hidden=True)] = None,
    **given: object,
) -> None:
    """Start a node and run SCRIPT under it; without SCRIPT, train the digits task.

    Options come before SCRIPT. Each may also be set in the TOML file or as ADPSGD_<NAME>: --chunk-bytes is
    ADPSGD_CHUNK_BYTES; those in seconds end in _S, as ADPSGD_JOIN_TIMEOUT_S.
    """
    node_config = compose(NodeConfig, config if config is not None else config_path(), given)
    command = None if trainer_fd is not None else find_script(script, arguments or (), module=module)

    quiet_grpc()
    from adpsgd_node.daemon.app import run  # late: --help must not import gRPC

    raise typer.Exit(run(node_config, command, trainer_fd))


def find_script(script: str | None, arguments: Iterable[str], *, module: bool) -> tuple[str, ...]:
    """Return the arguments that python needs to run the script. Raises `ConfigError` when there is no such script."""
    if script is None:
        if module:
            raise ConfigError("-m needs the name of a module: adpsgd-node up -m MODULE [ARGS...]")
        return DEFAULT_SCRIPT
    if module:
        if not _module_exists(script):
            raise ConfigError(f"no module named {script}: install it, or start from the folder that holds it")
        return ("-m", script, *arguments)
    if Path(script).is_file():
        return (script, *arguments)
    if os.path.basename(script).startswith("python"):
        raise ConfigError(f"{script} is no script: leave it out, adpsgd-node starts python itself")
    kind = "is a folder" if Path(script).is_dir() else f"does not exist in {Path.cwd()}"
    raise ConfigError(f"script {script} {kind}: give the path of a Python file, or -m MODULE")


def _module_exists(name: str) -> bool:
    """Look for a module without running any of it, nor of the packages around it."""
    search: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    parts = name.split(".")
    for depth in range(len(parts)):
        if not parts[depth] or search is None:
            return False
        full = ".".join(parts[: depth + 1])
        spec = importlib.machinery.PathFinder.find_spec(full, search) or (_find_installed(full) if depth == 0 else None)
        if spec is None:
            return False
        locations = spec.submodule_search_locations
        search = list(locations) if locations is not None else None
    return True


def _find_installed(name: str) -> importlib.machinery.ModuleSpec | None:
    """Ask the other finders too: an editable install brings one of its own. A top-level name imports nothing."""
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec: importlib.machinery.ModuleSpec | None = find_spec(name, None) if find_spec else None
        if spec is not None:
            return spec
    return None

"""Collect the commands of `adpsgd-node`; only a command that runs imports what it needs."""

from __future__ import annotations

import sys

import typer

from adpsgd_cli.checkpoint import checkpoint
from adpsgd_cli.compare.command import compare
from adpsgd_cli.demo.command import demo
from adpsgd_cli.drain import DRAIN_EPILOG, drain
from adpsgd_cli.options import with_settings
from adpsgd_cli.simulate import simulate
from adpsgd_cli.status import status
from adpsgd_cli.up import up
from adpsgd_cli.version import version
from adpsgd_node.daemon.settings import NodeConfig
from adpsgd_node.errors import AdpsgdError

__all__ = ["build", "main"]

_EPILOG = (
    "Exit codes: 0 done, or stopped by SIGTERM; 1 other errors, also: no node runs here; 2 wrong options; "
    "3 an address could not be bound; 4 no seed could be reached; 5 the name is in use; "
    "6 another run or protocol version; 7 another model; 8 this node's own loss or parameters are not finite; "
    "9 the script never joined; 10 the daemon is gone; 11 the model cannot be exchanged; 12 a plane that does not fit; "
    "13 a checkpoint cannot be used; 14 a node is lost that the algorithm cannot go on without; "
    "130 interrupted. A script that ends by itself passes its own code on, 128 + N when signal N ended it."
)


def build() -> typer.Typer:
    """Put the command line together."""
    app = typer.Typer(
        help="Train a PyTorch model together with other machines by AD-PSGD: no server, no barrier.",
        epilog=_EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    # Options end at SCRIPT: whatever follows is the script's own, dashes included.
    app.command(context_settings={"allow_interspersed_args": False}, epilog=_EPILOG)(with_settings(up, NodeConfig))
    app.command()(demo)
    app.command()(compare)
    app.command()(status)
    app.command(epilog=DRAIN_EPILOG)(drain)
    app.command()(checkpoint)
    app.add_typer(simulate, name="simulate")
    app.command()(version)
    return app


def main() -> None:
    """Run the command line; an error made on purpose is one line on stderr and its own exit code."""
    try:
        build()(prog_name="adpsgd-node")
    except AdpsgdError as error:
        print(f"adpsgd-node: {error}", file=sys.stderr)
        sys.exit(error.exit_code)

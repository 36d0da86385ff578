"""Say which version this is."""

from __future__ import annotations

from importlib.metadata import version as installed_version

import typer

from adpsgd_node.ids import PROTOCOL_VERSION

__all__ = ["version"]


def version() -> None:
    """Print the version of adpsgd-node and of the protocol its nodes speak."""
    typer.echo(f"adpsgd-node {installed_version('adpsgd-node')} (protocol {PROTOCOL_VERSION})")

"""Come to a daemon: the one that started this script, or a child started here when there is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from adpsgd_node.config import trainer_fd
from adpsgd_node.errors import ConfigError, SchemaMismatchError, WireError
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.trainer.inventory import Inventory
from adpsgd_node.trainer.link import MAX_DESCRIPTORS, Link
from adpsgd_node.wire.trainer import Attach, Attached

__all__ = ["ANSWER_LIMIT_S", "Attachment", "DaemonChild", "attach", "connect"]

ANSWER_LIMIT_S = 60.0
"""Longest wait for a daemon to answer `Attach`: it only has to make the plane."""

EXIT_LIMIT_S = 2.0
"""Longest wait for the exit code of a child daemon that closed its socket."""

STOP_LIMIT_S = 35.0
"""Longest wait for a child daemon to end after SIGTERM: a little more than it gives itself unless told otherwise."""

STOP_MARGIN_S = 5.0
"""How much longer than its `drain_timeout_s`, where that is given, a child daemon is waited for."""


class DaemonChild:
    """A daemon that this script started for itself.

    After `finish` it stays until this process ends and the other nodes have finished too: they may still need it.
    """

    def __init__(self, process: subprocess.Popen[bytes], stop_limit_s: float) -> None:
        self._process = process
        self._stop_limit_s = stop_limit_s

    @classmethod
    def start(cls, options: Mapping[str, object]) -> tuple[DaemonChild, socket.socket]:
        """Start `adpsgd-node up` with one end of a socketpair; give the child and the other end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        command = [sys.executable, "-m", "adpsgd_cli", "up", "--trainer-fd", str(theirs.fileno())]
        with theirs:
            # A session of its own: Ctrl-C in a terminal or notebook is this script's to handle, not the daemon's.
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module; options are flags, no shell
                [*command, *_flags(options)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        given = options.get("drain_timeout_s")
        return cls(process, given + STOP_MARGIN_S if isinstance(given, int | float) else STOP_LIMIT_S), ours

    def diagnose(self) -> str:
        """Say how it ended; empty while it runs. Asked only when it seems lost: its socket closes before it exits."""
        try:
            return f"it ended with exit code {self._process.wait(EXIT_LIMIT_S)}"
        except subprocess.TimeoutExpired:
            return ""

    @property
    def refused_its_options(self) -> bool:
        """Whether it ended at once because of how it was called."""
        return self._process.returncode == ConfigError.exit_code

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL when that does not help."""
        self._process.terminate()
        try:
            self._process.wait(self._stop_limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What ties this trainer to its daemon."""

    link: Link
    child: DaemonChild | None
    """Set when this script started the daemon."""
    plane: Plane
    step_event: int
    """Descriptor of the eventfd that tells the daemon of each step."""
    gate_event: int
    """Descriptor of the eventfd by which the daemon lets a step pass that waits for the others."""
    attached: Attached


def connect(options: Mapping[str, object]) -> tuple[Link, DaemonChild | None]:
    """Find the daemon that started this script, or start one with `options`."""
    fd = trainer_fd()
    if fd is None:
        child, daemon = DaemonChild.start(options)
        return Link(daemon, child.diagnose), child
    given = [name for name, value in options.items() if value is not None]
    if given:
        warnings.warn(
            f"join() ignores {', '.join(given)}: this script runs under a daemon; give the options to `adpsgd-node up`",
            stacklevel=3,
        )
    return Link.adopt(fd), None


def attach(link: Link, child: DaemonChild | None, inventory: Inventory, dataset_size: int | None) -> Attachment:
    """Announce the model; map the plane that the daemon made (or kept) for it."""
    link.send(Attach(pid=os.getpid(), tensors=inventory.specs, dataset_size=dataset_size or 0))
    attached = link.receive(Attached, ANSWER_LIMIT_S)
    link.watch(attached.daemon_pid)
    descriptors = link.take_descriptors()
    if len(descriptors) != MAX_DESCRIPTORS:
        for fd in descriptors:
            os.close(fd)
        found = f"{len(descriptors)} descriptors came with Attached, not {MAX_DESCRIPTORS}"
        raise WireError(f"{found}: run one version of adpsgd-node")
    try:
        layout = Layout.build(inventory.specs, attached.chunk_bytes)
        if layout.schema != attached.schema:
            raise SchemaMismatchError("the daemon holds the plane of another model: restart the node to train this one")
        plane = Plane.attach(descriptors[0], layout)
    except BaseException:
        for fd in descriptors:
            os.close(fd)
        raise
    _, step_event, gate_event = descriptors
    return Attachment(
        link=link, child=child, plane=plane, step_event=step_event, gate_event=gate_event, attached=attached
    )


def _flags(options: Mapping[str, object]) -> list[str]:
    """Write options as `adpsgd-node up` takes them: `exchanges_per_step=2` is `--exchanges-per-step 2`."""
    flags: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list | tuple):
            flags.append(f"--{flag}={','.join(map(str, value))}")
        elif isinstance(value, str | int | float | os.PathLike):
            flags.append(f"--{flag}={value}")
        else:
            raise ConfigError(f"option {name} of join() is a {type(value).__name__}: give text, a number or a list")
    return flags

"""Show a demo's progress: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from adpsgd_cli.demo.cluster import Cluster, NodeProcess
from adpsgd_cli.demo.history import History
from adpsgd_cli.status_view import number
from adpsgd_node.setting import choice

__all__ = ["View"]

LINE_INTERVAL_S = 2.0
"""Least time between two plain lines."""


class View:
    """Where a demo's progress is shown; used as a context manager."""

    def __init__(self, *, on_stderr: bool) -> None:
        self._console = Console(stderr=on_stderr)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._line_at_s = 0.0

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print one line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, cluster: Cluster, history: History, elapsed_s: float) -> None:
        """Show the nodes as they are now."""
        if self._live is not None:
            self._live.update(table(cluster, history, elapsed_s), refresh=True)
        elif elapsed_s >= self._line_at_s:
            self._line_at_s = elapsed_s + LINE_INTERVAL_S
            self.say(line(cluster, history, elapsed_s))


def table(cluster: Cluster, history: History, elapsed_s: float) -> Group:
    """Lay out one row a node, and the progress of all."""
    rows = Table(header_style="bold")
    for title in ("node", "state", "step", "samples/s", "loss", "accuracy", "exchanges", "consensus distance"):
        rows.add_column(title, justify="left" if title in ("node", "state") else "right")
    for name, node in cluster.nodes.items():
        status = history.latest.get(name)
        if status is None:
            rows.add_row(name, node_state(node, history))
            continue
        rows.add_row(
            name,
            node_state(node, history),
            str(status.step),
            number(status.samples_per_s),
            number(status.loss),
            number(status.accuracy),
            str(status.exchanges_initiated + status.exchanges_responded),
            number(status.consensus_distance, 3),
        )
    bar = ProgressBar(total=1.0, completed=history.fraction, width=60)
    return Group(rows, bar, Text(f"{_progress(history)}, {elapsed_s:.0f} s"))


def line(cluster: Cluster, history: History, elapsed_s: float) -> str:
    """Write the same in one line."""
    parts = [f"[{elapsed_s:5.1f} s] {_progress(history)}"]
    for name, node in cluster.nodes.items():
        status = history.latest.get(name)
        known = "" if status is None else f" step {status.step} loss {number(status.loss, 3)}"
        parts.append(f"{name} {node_state(node, history)}{known}")
    distances = [status.consensus_distance for status in history.latest.values()]
    with contextlib.suppress(ValueError):  # from max(): no node has told a distance yet
        parts.append(f"consensus distance {number(max(d for d in distances if d == d), 3)}")
    return "; ".join(parts)


def node_state(node: NodeProcess, history: History) -> str:
    """Say what a node is doing, from its process where that has ended, else from its own word."""
    if node.killed:
        return "killed"
    if node.returncode is not None:
        return "finished" if node.returncode == 0 else f"failed ({node.returncode})"
    status = history.latest.get(node.name)
    return "starting" if status is None else choice(status.self_member.phase)


def _progress(history: History) -> str:
    if not history.samples_target:
        return f"{history.samples_total} samples"
    return f"{history.fraction:4.0%} of {history.samples_target} samples, {history.exchanges_total} exchanges"

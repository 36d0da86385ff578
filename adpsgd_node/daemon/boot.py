"""Number the lives of a node: each one larger than those before it, also when the clock was set back."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from adpsgd_node.ids import MAX_BOOT, NodeId
from adpsgd_node.telemetry.log import EventLog

__all__ = ["BootFile"]

MAX_OUTBID = 3
"""Times one process takes a larger number because peers remember one; more would be somebody's game."""
MAX_FILE_BYTES = 64


class BootFile:
    """The last boot number of this node, in the file `boot` of its output folder.

    The clock alone would do (in milliseconds it stays readable in a log), were it never set back. The file alone would
    do, were no folder ever lost. So the larger of both is taken; where both fail, the peers say what they remember.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "boot"
        self._outbid = 0
        self._log = EventLog("boot")

    def next(self) -> int:
        """Take and note the number of the life that begins now."""
        boot = max(time.time_ns() // 1_000_000, self._last() + 1)
        self.note(boot)
        return boot

    def note(self, boot: int) -> None:
        """Note a number that is in use from now on; without the file the node runs on, its next life by the clock."""
        fresh = self.path.with_name(f".boot.{os.getpid()}")
        try:
            with fresh.open("w") as file:
                file.write(f"{boot}\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            self._log.warning("cannot note the boot number", path=self.path, cause=error.strerror, boot=boot)
            with contextlib.suppress(OSError):  # the failure is logged, and a leftover does no harm
                fresh.unlink(missing_ok=True)

    def outbid(self, own: NodeId, ghost: NodeId) -> NodeId | None:
        """Take a number above that of an earlier life that peers remember; None when it is too large, or too often."""
        if not own.boot < ghost.boot < MAX_BOOT or self._outbid >= MAX_OUTBID:
            return None
        self._outbid += 1
        self.note(ghost.boot + 1)
        return NodeId(own.name, ghost.boot + 1)

    def _last(self) -> int:
        try:
            with self.path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES)
        except FileNotFoundError:
            return 0
        except OSError as error:
            self._log.warning("cannot read the last boot number", path=self.path, cause=error.strerror)
            return 0
        digits = text.strip()
        if not digits.isdigit() or not int(digits) < MAX_BOOT:
            self._log.warning("the file holds no boot number; it is written anew", path=self.path)
            return 0
        return int(digits)

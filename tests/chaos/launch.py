"""Start `adpsgd-node` as its command line would, recorded, and open to what the suite does to it from outside.

    python launch.py FOLDER CLOCK_OFFSET_S up ...

FOLDER gets the ledger of this life. SIGUSR1 breaks all its streams, SIGUSR2 writes its report to `report.json` there;
its end writes it too. CLOCK_OFFSET_S is added to the wall clock that this life reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.exact_view import exact_view

if TYPE_CHECKING:
    from chaos.recorder import Recorder

REPORT_FILE = "report.json"
VIEW_FILE = "view.npy"
"""What the node's parameters were at its latest report."""


class Launch:
    """One life that is recorded."""

    def __init__(self, folder: Path) -> None:
        from chaos.census import Census
        from chaos.ledger import FileLedger

        self._folder = folder
        self._ledger = FileLedger(folder)
        self._census = Census()
        self._recorder: Recorder | None = None
        self._loop: asyncio.AbstractEventLoop
        self._reports = 0

    def made(self, recorder: Recorder) -> None:
        """Take up the node's engine, inside its event loop."""
        self._ledger.name(recorder.identity)
        first, self._recorder = self._recorder is None, recorder  # a node may take another boot number before it joins
        self._loop = asyncio.get_running_loop()
        if first:
            self._census.install(self._loop)
        self._on(signal.SIGUSR1, recorder.break_off)
        self._on(signal.SIGUSR2, lambda: self.write(False))

    def _on(self, number: signal.Signals, action: Callable[[], None]) -> None:
        """Do `action` in the loop at a signal. The loop's own handlers end with it, and a late signal would kill."""

        def take(*_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the node is about to end
                self._loop.call_soon_threadsafe(action)

        signal.signal(number, take)

    def write(self, final: bool) -> None:
        if self._recorder is None:
            return
        self._reports += 1
        # When it is final the loop is closed, and asyncio itself has cancelled whatever was left in it.
        hung = [] if final else self._census.hung(self._loop)
        if self._recorder.plane is not None and self._recorder.plane.fd >= 0:
            np.save(self._folder / VIEW_FILE, exact_view(self._recorder.plane))
        report = {**self._recorder.report(), "number": self._reports, "final": final, "hung": hung}
        partial = self._folder / f"{REPORT_FILE}.partial"
        partial.write_text(json.dumps(report))
        partial.rename(self._folder / REPORT_FILE)

    def run(self, clock_offset_s: float, arguments: list[str]) -> None:
        from adpsgd_cli.main import main
        from adpsgd_node.config import quiet_grpc

        quiet_grpc()  # before the recorder imports the engine, as `up` does
        from chaos.recorder import recording

        shift_clock(clock_offset_s)
        sys.argv = ["adpsgd-node", *arguments]
        try:
            with recording(self.made, lambda _: self._ledger):
                main()
        finally:
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)  # Python's own end would let a late one kill
            self.write(True)


class WrongClock:
    """The module `time`, but for a wall clock that is off."""

    def __init__(self, offset_s: float) -> None:
        self._offset_s = offset_s

    def time(self) -> float:
        return time.time() + self._offset_s

    def time_ns(self) -> int:
        return time.time_ns() + int(self._offset_s * 1e9)

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


def shift_clock(offset_s: float) -> None:
    """Have our own code in this process read a wall clock that is wrong by so much.

    Only ours: gRPC's Python half turns timeouts into wall-clock times for its other half, which reads the true clock.
    """
    if offset_s:
        import adpsgd_node.daemon.app  # noqa: F401 - all that a daemon consists of

        for name, module in list(sys.modules.items()):
            if name.startswith("adpsgd_") and getattr(module, "time", None) is time:
                module.time = WrongClock(offset_s)


def main() -> None:
    folder, offset_s, *arguments = sys.argv[1:]
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)  # before the node listens to them, they must not end it
    with contextlib.suppress(KeyboardInterrupt):
        Launch(Path(folder)).run(float(offset_s), arguments)


if __name__ == "__main__":
    main()

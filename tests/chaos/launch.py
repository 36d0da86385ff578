"""Start `adpsgd-node` as its command line would, recorded, and open to what the suite does to it from outside.

    python launch.py FOLDER CLOCK_OFFSET_S up ...

FOLDER gets the ledger of this life. SIGUSR1 breaks all its streams, SIGUSR2 writes its report to `report.json` there;
its end writes it too. CLOCK_OFFSET_S is added to the wall clock that this life reads; SIGHUP has it take another offset
from the file `clock` in FOLDER, which is a step of the clock under a running process.
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
CLOCK_FILE = "clock"
"""By how many seconds the wall clock is to be wrong from the next SIGHUP on."""
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Launch:
    """One life that is recorded."""

    def __init__(self, folder: Path) -> None:
        from chaos.census import Census
        from chaos.ledger import FileLedger

        self._folder = folder
        self._clock = WrongClock()
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
        self._on(signal.SIGHUP, self._step_clock)

    def _on(self, number: signal.Signals, action: Callable[[], None]) -> None:
        """Do `action` in the loop at a signal. The loop's own handlers end with it, and a late signal would kill."""

        def take(*_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the node is about to end
                self._loop.call_soon_threadsafe(action)

        signal.signal(number, take)

    def _step_clock(self) -> None:
        self._clock.offset_s = float((self._folder / CLOCK_FILE).read_text())

    def write(self, final: bool) -> None:
        if self._recorder is None:
            return
        self._reports += 1
        report = {
            **self._recorder.report(),
            "number": self._reports,
            "final": final,
            # When it is final the loop is closed; what asyncio had to cancel then counts by how long it lived.
            "hung": self._census.late() if final else self._census.hung(self._loop),
            "begun_s": {} if final else self._census.begun_s(self._loop),
            "viewed": self._write_view(),
            "clock_offset_s": clock_offset_s(),
        }
        partial = self._folder / f"{REPORT_FILE}.partial"
        partial.write_text(json.dumps(report))
        partial.rename(self._folder / REPORT_FILE)

    def _write_view(self) -> bool:
        """Write what the parameters are now; False without any."""
        plane = self._recorder.plane if self._recorder is not None else None
        if plane is None or plane.fd < 0:
            return False
        partial = self._folder / f"{VIEW_FILE}.partial"
        with partial.open("wb") as file:
            np.save(file, exact_view(plane))
        partial.rename(self._folder / VIEW_FILE)
        return True

    def run(self, clock_offset_s: float, arguments: list[str]) -> None:
        from adpsgd_cli.main import main
        from adpsgd_node.config import quiet_grpc

        quiet_grpc()  # before the recorder imports the engine, as `up` does
        from chaos.recorder import recording

        self._clock.offset_s = clock_offset_s
        install_clock(self._clock)
        sys.argv = ["adpsgd-node", *arguments]
        try:
            with recording(self.made, lambda _: self._ledger):
                main()
        finally:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # Python's own end would let a late one kill
            self.write(True)


class WrongClock:
    """The module `time`, but for a wall clock that is off by `offset_s`, which may change at any moment."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def time(self) -> float:
        return time.time() + self.offset_s

    def time_ns(self) -> int:
        return time.time_ns() + int(self.offset_s * 1e9)

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


def install_clock(clock: WrongClock) -> None:
    """Have our own code in this process read this clock.

    Only ours: gRPC's Python half turns timeouts into wall-clock times for its other half, which reads the true clock.
    """
    import adpsgd_node.daemon.app  # noqa: F401 - all that a daemon consists of

    for name, module in list(sys.modules.items()):
        if name.startswith("adpsgd_") and getattr(module, "time", None) is time:
            module.time = clock


def clock_offset_s() -> float:
    """Return how wrong the wall clock is that the daemon's code reads, asked where it numbers its lives."""
    from adpsgd_node.daemon import boot

    return boot.time.time() - time.time()


def main() -> None:
    folder, offset_s, *arguments = sys.argv[1:]
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)  # before the node listens to them, they must not end it
    with contextlib.suppress(KeyboardInterrupt):  # a node told to end by SIGINT has ended: nothing to add
        Launch(Path(folder)).run(float(offset_s), arguments)


if __name__ == "__main__":
    main()

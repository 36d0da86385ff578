"""The first word has a node leave, the second signal hurries it; a signal is never lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from adpsgd_node.daemon.stop import Stop


class Heard:
    """A stop that notes whom it wakes."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        self.notified = 0
        self.changed = asyncio.Event()
        self.stop = Stop(timeout_s, notify=self._notify, kill=lambda: None)

    def _notify(self) -> None:
        self.notified += 1
        self.changed.set()

    async def signal(self, number: signal.Signals) -> None:
        self.changed.clear()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(self.changed.wait(), 10.0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_signal_asks_to_leave_within_the_configured_time(number: signal.Signals, code: int) -> None:
    heard = Heard(timeout_s=30.0)
    heard.stop.watch_signals()
    await heard.signal(number)
    stop = heard.stop
    assert (stop.asked, stop.hurried, stop.exit_code, stop.cause) == (True, False, code, number.name)
    assert 29.0 < stop.left_s() <= 30.0


async def test_a_second_signal_hurries_and_decides_the_exit_code() -> None:
    heard = Heard()
    heard.stop.watch_signals()
    await heard.signal(signal.SIGINT)
    await heard.signal(signal.SIGTERM)
    assert heard.stop.hurried
    assert heard.stop.exit_code == 128 + signal.SIGTERM


async def test_a_time_given_when_asking_is_kept_to_and_later_words_change_nothing() -> None:
    heard = Heard()
    assert heard.stop.ask(5.0, "first") == 5.0
    assert heard.stop.ask(60.0, "second") <= 5.0
    assert heard.stop.ask(0.0, "third") <= 5.0
    assert heard.stop.cause == "first"
    assert heard.notified == 1


async def test_a_signal_after_the_command_hurries() -> None:
    heard = Heard()
    heard.stop.watch_signals()
    heard.stop.ask(5.0, "the command")
    await heard.signal(signal.SIGTERM)
    assert heard.stop.hurried


def test_a_third_signal_ends_the_process_and_kills_the_script_first() -> None:
    program = """
        import asyncio, os, signal
        from adpsgd_node.daemon.stop import Stop

        async def main():
            stop = Stop(30.0, notify=lambda: None, kill=lambda: print("killed", flush=True))
            stop.watch_signals()
            while True:
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.01)  # lets the loop take the signal
                print(stop.asked, stop.hurried, flush=True)

        asyncio.run(main())
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.splitlines() == ["True False", "True True", "killed"]
    assert ended.returncode == 128 + signal.SIGTERM

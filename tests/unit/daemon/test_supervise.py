"""The supervisor with real processes: small scripts that end, fail, hang, flood and leave children behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from adpsgd_node.daemon.script import Script
from adpsgd_node.daemon.supervise import (
    Exited,
    GaveUp,
    Started,
    Supervisor,
    SupervisorConfig,
    SupervisorEvent,
)
from adpsgd_node.errors import TrainerError
from adpsgd_node.telemetry.output import Channel

PATIENCE_S = 20.0


class Watched:
    """A supervisor whose events and lines are kept."""

    def __init__(self, script: Script, config: SupervisorConfig) -> None:
        self.lines: list[tuple[Channel, bytes]] = []
        self.events: list[SupervisorEvent] = []
        self._news = asyncio.Event()
        self.on_started: Callable[[Started], None] = lambda _: None
        self.supervisor = Supervisor(script, self, self._hear, environment=dict(os.environ), config=config)

    def write(self, channel: Channel, line: bytes) -> None:
        self.lines.append((channel, line))
        self._news.set()

    def _hear(self, event: SupervisorEvent) -> None:
        self.events.append(event)
        self._news.set()
        if isinstance(event, Started):
            self.on_started(event)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def run(self) -> Exited | None:
        async with asyncio.timeout(PATIENCE_S):
            return await self.supervisor.run()

    def starts(self) -> list[Started]:
        return [event for event in self.events if isinstance(event, Started)]

    def said(self, channel: Channel = Channel.OUT) -> list[bytes]:
        return [line for of, line in self.lines if of is channel]


Watch = Callable[..., Watched]


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    """Make a watched supervisor of a script's text; what still runs at the end is killed."""
    watched: list[Watched] = []

    def make(text: str, **config: float) -> Watched:
        path = tmp_path / f"script_{len(watched)}.py"
        path.write_text(text)
        settings: dict[str, float] = {"max_restarts": 0, "backoff_s": 0.001, **config}
        watched.append(Watched(Script.of((str(path),)), SupervisorConfig(**settings)))  # type: ignore[arg-type]
        return watched[-1]

    yield make
    for one in watched:
        await one.supervisor.stop(0)
        for event in one.starts():
            event.link.close()


def gone(pid: int) -> bool:
    """Whether no such process runs (one that is dead but not reaped by its parent does not run)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def until_gone(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, ended.set)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await ended.wait()
        finally:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)


async def test_output_of_both_streams_is_passed_on_line_by_line(watch: Watch) -> None:
    script = watch("import sys; print('one'); print('two', end=''); print('bad', file=sys.stderr)")
    exited = await script.run()
    assert exited is not None
    assert exited.succeeded
    assert script.said() == [b"one", b"two"]
    assert script.said(Channel.ERROR) == [b"bad"]


async def test_output_arrives_while_the_script_still_runs(watch: Watch) -> None:
    script = watch("import time; print('step 1'); time.sleep(1000)")  # outlives the test unless killed
    running = asyncio.create_task(script.run())
    await script.until(lambda: script.said() == [b"step 1"])
    await script.supervisor.stop(0)
    await running


async def test_flood_of_output_without_newlines_comes_in_bounded_pieces(watch: Watch) -> None:
    script = watch("import sys; sys.stdout.write('x' * 3_000_000)")
    await script.run()
    assert sum(map(len, script.said())) == 3_000_000
    assert max(map(len, script.said())) <= 8192


async def test_script_finds_its_end_of_a_fresh_socketpair_in_each_attempt(watch: Watch) -> None:
    script = watch(
        "import os, socket\n"
        "link = socket.socket(fileno=int(os.environ['ADPSGD_TRAINER_FD']))\n"
        "link.sendall(b'hello from %d' % os.getpid())\n"
        "raise SystemExit(3)\n",
        max_restarts=1,
    )
    await script.run()
    first, second = script.starts()
    assert (first.attempt, second.attempt) == (1, 2)
    for event in (first, second):
        assert event.link.recv(100) == b"hello from %d" % event.pid
        assert event.link.recv(100) == b"", "the daemon must not hold the script's end open"


async def test_script_inherits_no_other_descriptor_and_no_input(watch: Watch) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        script = watch(
            "import os, sys\n"
            "link = int(os.environ['ADPSGD_TRAINER_FD'])\n"
            f"for fd in (link, {writing}):\n"
            "    try: os.fstat(fd); print('open')\n"
            "    except OSError: print('closed')\n"
            "print(repr(sys.stdin.read()))\n"
        )
        await script.run()
        assert script.said() == [b"open", b"closed", b"''"]
    finally:
        os.close(reading)
        os.close(writing)


async def test_status_of_a_failing_script_is_reported_and_it_is_not_restarted_without_leave(watch: Watch) -> None:
    script = watch("raise SystemExit(7)")
    exited = await script.run()
    assert exited is not None
    assert (exited.code, exited.signal_name, exited.succeeded) == (7, None, False)
    assert script.events[1:] == [exited, GaveUp(exited, 0)]


async def test_signal_that_ended_a_script_is_reported_by_name(watch: Watch) -> None:
    script = watch("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    exited = await script.run()
    assert exited is not None
    assert (exited.code, exited.signal_name) == (None, "SIGKILL")
    assert str(exited) == "was ended by SIGKILL without having called adpsgd_node.join()"


async def test_failing_script_is_restarted_until_restarts_run_out(watch: Watch) -> None:
    script = watch("raise SystemExit(1)", max_restarts=2)
    exited = await script.run()
    assert [event.attempt for event in script.starts()] == [1, 2, 3]
    assert script.events[-1] == GaveUp(exited, 2)  # type: ignore[arg-type]


async def test_script_that_succeeds_after_a_failure_ends_the_run(watch: Watch, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = watch(
        f"from pathlib import Path\nmark = Path({str(mark)!r})\n"
        "if not mark.exists(): mark.touch(); raise SystemExit(1)\n",
        max_restarts=5,
    )
    exited = await script.run()
    assert exited is not None
    assert exited.succeeded
    assert len(script.starts()) == 2
    assert not any(isinstance(event, GaveUp) for event in script.events)


async def test_script_that_never_joined_is_told_from_one_that_did(watch: Watch) -> None:
    never = watch("pass")
    joined = watch("pass")
    joined.on_started = lambda _: joined.supervisor.mark_attached()
    ends = [await never.run(), await joined.run()]
    assert [end.attached for end in ends if end is not None] == [False, True]
    assert [str(end) for end in ends] == [
        "exited with status 0 without having called adpsgd_node.join()",
        "exited with status 0",
    ]


async def test_attachment_of_one_attempt_does_not_count_for_the_next(watch: Watch) -> None:
    script = watch("raise SystemExit(1)", max_restarts=1)

    def attach_first(event: Started) -> None:
        if event.attempt == 1:
            script.supervisor.mark_attached()

    script.on_started = attach_first
    await script.run()
    assert [event.attached for event in script.events if isinstance(event, Exited)] == [True, False]


async def test_restarts_of_a_script_that_ran_healthily_are_forgiven(watch: Watch) -> None:
    script = watch("raise SystemExit(1)", max_restarts=1, healthy_s=0.0)

    def attach_at_first(event: Started) -> None:
        if event.attempt <= 3:
            script.supervisor.mark_attached()

    script.on_started = attach_at_first
    await script.run()
    # 1 fails: restart 1. 2 and 3 had joined: forgiven, restart 1 again. 4 never joined: none left.
    assert [event.attempt for event in script.starts()] == [1, 2, 3, 4]


async def test_stop_lets_a_script_end_in_good_order(watch: Watch) -> None:
    script = watch(
        "import signal, sys, time\n"
        "def leave(*_): print('saved'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "print('ready'); time.sleep(1000)\n"  # outlives the test unless it is stopped
    )
    running = asyncio.create_task(script.run())
    await script.until(lambda: script.said() == [b"ready"])
    await script.supervisor.stop(PATIENCE_S)
    exited = await running
    assert exited is not None
    assert exited.code == 0
    assert script.said() == [b"ready", b"saved"]


async def test_stop_kills_a_script_that_ignores_it_and_does_not_restart_it(watch: Watch) -> None:
    script = watch(  # it outlives the test unless it is killed
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(1000)",
        max_restarts=5,
    )
    running = asyncio.create_task(script.run())
    await script.until(script.said)
    await script.supervisor.stop(0.01)
    exited = await running
    assert exited is not None
    assert exited.signal_name == "SIGKILL"
    assert len(script.starts()) == 1


async def test_second_stop_hurries_the_first(watch: Watch) -> None:
    script = watch(  # it outlives the test unless it is killed
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(1000)"
    )
    running = asyncio.create_task(script.run())
    await script.until(script.said)
    patient = asyncio.create_task(script.supervisor.stop(1000.0))
    await asyncio.sleep(0)
    await script.supervisor.stop(0)
    async with asyncio.timeout(PATIENCE_S):
        await patient
        await running


async def test_stop_during_the_wait_before_a_restart_ends_the_run(watch: Watch) -> None:
    script = watch("raise SystemExit(1)", max_restarts=5, backoff_s=1000.0, backoff_limit_s=1000.0)
    running = asyncio.create_task(script.run())
    await script.until(lambda: any(isinstance(event, Exited) for event in script.events))
    await script.supervisor.stop(0)
    async with asyncio.timeout(PATIENCE_S):
        exited = await running
    assert exited is not None
    assert exited.code == 1


async def test_stop_before_the_first_start_starts_nothing(watch: Watch) -> None:
    script = watch("pass")
    await script.supervisor.stop(0)
    assert await script.run() is None
    assert script.events == []


async def test_children_of_a_dead_script_are_ended_with_it(watch: Watch) -> None:
    script = watch(
        "import os, subprocess, sys\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)\n"  # outlives the patience
        "os._exit(1)\n"
    )
    await script.run()
    await until_gone(int(script.said()[0]))


async def test_child_in_a_session_of_its_own_that_holds_the_pipes_does_not_hold_up_the_end(watch: Watch) -> None:
    script = watch(
        "import subprocess, sys\n"
        "command = [sys.executable, '-c', 'import time; time.sleep(60)']\n"  # outlives the test unless killed
        "print(subprocess.Popen(command, start_new_session=True).pid)\n",
        drain_s=0.05,
    )
    exited = await script.run()
    child = int(script.said()[0])
    try:
        assert exited is not None
        assert exited.succeeded
        assert not gone(child), "the child must still hold the pipes for this test to mean anything"
    finally:
        os.kill(child, signal.SIGKILL)


async def test_cancelled_run_leaves_no_process_behind(watch: Watch) -> None:
    script = watch("import time; print('ready'); time.sleep(1000)")  # outlives the test unless killed
    running = asyncio.create_task(script.run())
    await script.until(script.said)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert gone(script.starts()[0].pid)
    assert script.supervisor.pid is None


async def test_no_descriptor_is_left_open_after_a_run(watch: Watch) -> None:
    script = watch("raise SystemExit(1)", max_restarts=3)
    before = len(os.listdir("/proc/self/fd"))
    await script.run()
    for event in script.starts():
        event.link.close()
    await asyncio.sleep(0)  # transports close in the loop's next turn
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_script_that_does_not_join_is_complained_about_again_and_again(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    script = watch("import time; time.sleep(1000)", join_reminder_s=0.001)  # never joins; killed below
    reminded = asyncio.Event()

    class Counter(logging.Handler):
        seen = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.seen += "has not called adpsgd_node.join" in record.getMessage()
            if self.seen == 3:
                reminded.set()

    handler = Counter()
    logger = logging.getLogger("adpsgd_node.supervise")
    logger.addHandler(handler)
    running = asyncio.create_task(script.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await reminded.wait()
    finally:
        logger.removeHandler(handler)
        await script.supervisor.stop(0)
        await running


async def test_interpreter_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    watched = Watched(Script("train.py", (str(tmp_path / "python"), "train.py")), SupervisorConfig())
    with pytest.raises(TrainerError, match=r"cannot start .*python: No such file"):
        await watched.run()


def test_wait_before_a_restart_doubles_up_to_its_limit() -> None:
    config = SupervisorConfig(backoff_s=1.0, backoff_limit_s=30.0)
    assert [config.backoff_before(restart) for restart in (1, 2, 3, 5, 6, 1000)] == [1.0, 2.0, 4.0, 16.0, 30.0, 30.0]


def test_negative_number_of_restarts_is_refused() -> None:
    with pytest.raises(ValueError, match="max_restarts -1"):
        SupervisorConfig(max_restarts=-1)

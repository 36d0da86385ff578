"""Start the user's script, pass its output on, restart it when it fails, and end its whole process tree.

Each start is an attempt: a fresh process in a session of its own, with one end of a fresh socketpair. The end of an
attempt is judged by a pidfd, never by end-of-file: processes forked by the script inherit its pipes and socket.

    STARTING --spawned--> RUNNING --exit 0, or stop--> ended
        ^                    |
        '---- backoff <--- exit not 0, restarts left          (none left: GaveUp, ended)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adpsgd_node.daemon.script import Script
from adpsgd_node.daemon.script_output import LineSink, ScriptOutput
from adpsgd_node.errors import TrainerError
from adpsgd_node.telemetry.log import EventLog

__all__ = ["TRAINER_FD", "Exited", "GaveUp", "Started", "Supervisor", "SupervisorConfig", "SupervisorEvent"]

TRAINER_FD = "ADPSGD_TRAINER_FD"
"""Environment variable that tells the script the number of its end of the socketpair."""

KILL_WAIT_S = 10.0
"""How long a SIGKILL is waited for: a process stuck in the kernel (a dead disk, a GPU driver) does not die."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorConfig:
    """How patiently a failing script is started again."""

    max_restarts: int = 3
    """Restarts in a row before giving up; 0: never restart."""
    backoff_s: float = 1.0
    """Wait before the first restart; doubles with each one in a row."""
    backoff_limit_s: float = 30.0
    """Longest wait before a restart."""
    healthy_s: float = 300.0
    """A script that attached and then ran this long has its restarts forgiven."""
    join_reminder_s: float = 60.0
    """A script that has not called `adpsgd_node.join` is complained about this often."""
    drain_s: float = 2.0
    """How long output is still read after the script's end, while a process it left behind holds the pipes."""

    def __post_init__(self) -> None:
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts {self.max_restarts}: give 0 (never restart) or more")

    def backoff_before(self, restart: int) -> float:
        """Return the seconds to wait before restart 1, 2, ... in a row."""
        doublings = min(restart - 1, 30)  # bounds the power, not the wait
        return min(self.backoff_limit_s, self.backoff_s * 2.0**doublings)


@dataclass(frozen=True, slots=True)
class Started:
    pid: int
    link: socket.socket
    """The daemon's end, non-blocking; whoever gets the event owns and closes it."""
    attempt: int
    """1 for the first start."""


@dataclass(frozen=True, slots=True)
class Exited:
    """How one attempt ended; exactly one of `code` and `signal_name` is set."""

    code: int | None
    signal_name: str | None
    attached: bool
    """Whether the script had called `adpsgd_node.join` (see `Supervisor.mark_attached`)."""
    ran_s: float

    @property
    def succeeded(self) -> bool:
        return self.code == 0

    @property
    def exit_code(self) -> int:
        """What a shell would say: the script's own code, or 128 + the signal that ended it."""
        if self.code is not None:
            return self.code
        number = signal.Signals.__members__.get(self.signal_name or "")
        return 1 if number is None else 128 + number

    def __str__(self) -> str:
        how = f"exited with status {self.code}" if self.signal_name is None else f"was ended by {self.signal_name}"
        return how if self.attached else f"{how} without having called adpsgd_node.join()"


@dataclass(frozen=True, slots=True)
class GaveUp:
    last: Exited
    restarts: int


SupervisorEvent = Started | Exited | GaveUp


class Supervisor:
    """Own the script's process: one `run()` from first start to final end."""

    def __init__(
        self,
        script: Script,
        sink: LineSink,
        on_event: Callable[[SupervisorEvent], None],
        *,
        environment: Mapping[str, str],
        config: SupervisorConfig,
    ) -> None:
        """Take the script, where its lines go, who hears of events (called in the loop), and its environment."""
        self._script = script
        self._sink = sink
        self._on_event = on_event
        self._environment = environment
        self._config = config
        self._attempts = 0
        self._attached = False
        self._child: _Child | None = None
        self._stopping = asyncio.Event()
        self._log = EventLog("supervise")

    @property
    def pid(self) -> int | None:
        """The script's process id while it runs."""
        return None if self._child is None else self._child.pid

    def mark_attached(self) -> None:
        """Note that the running script has called `adpsgd_node.join`."""
        self._attached = True

    async def run(self) -> Exited | None:
        """Start and restart until the script succeeds, restarts run out or `stop` was called; returns the last end.

        None when stopped before the first start. Raises `TrainerError` when no process can be started at all.
        Cancelling kills the script.
        """
        restarts = 0
        exited: Exited | None = None
        while not self._stopping.is_set():
            exited = await self._attempt()
            if exited.succeeded or self._stopping.is_set():
                break
            if exited.attached and exited.ran_s >= self._config.healthy_s:
                restarts = 0
            if restarts >= self._config.max_restarts:
                self._on_event(GaveUp(exited, restarts))
                break
            restarts += 1
            delay_s = self._config.backoff_before(restarts)
            self._log.warning(
                f"script {exited}; it is started again",
                script=self._script.name,
                restart=f"{restarts} of {self._config.max_restarts}",
                in_s=delay_s,
            )
            await _set_within(self._stopping, delay_s)
        return exited

    async def stop(self, grace_s: float) -> None:
        """End the script and everything in its session: SIGTERM, then SIGKILL after `grace_s`. May be repeated.

        A second call with a shorter grace hurries the first. Returns once the process is gone, at the latest
        `KILL_WAIT_S` after SIGKILL.
        """
        self._stopping.set()
        child = self._child
        if child is None:
            return
        child.signal_tree(signal.SIGTERM if grace_s > 0 else signal.SIGKILL)
        if not await _set_within(child.ended, grace_s):
            child.signal_tree(signal.SIGKILL)
            if not await _set_within(child.ended, KILL_WAIT_S):
                self._log.error(
                    "the script does not die: it is stuck in the kernel", pid=child.pid, waited_s=KILL_WAIT_S
                )

    def kill(self) -> None:
        """End the script and everything in its session now, whatever becomes of it."""
        if self._child is not None:
            self._child.signal_tree(signal.SIGKILL)

    async def _attempt(self) -> Exited:
        loop = asyncio.get_running_loop()
        self._attached = False
        self._attempts += 1
        child, link = _spawn(self._script, self._environment)
        self._child = child
        began = loop.time()
        output = ScriptOutput(child.process, self._sink)
        reminder: asyncio.Task[None] | None = None
        try:
            self._on_event(Started(child.pid, link, self._attempts))
            await output.start()
            reminder = asyncio.create_task(self._remind_to_join(), name="remind to join")
            await child.ended.wait()
            await output.drain(self._config.drain_s)
        finally:
            if reminder is not None:
                reminder.cancel()
            child.release()
            output.close()
            self._child = None
        exited = _exited(child.process.returncode, self._attached, loop.time() - began)
        self._on_event(exited)
        return exited

    async def _remind_to_join(self) -> None:
        waited_s = 0.0
        while True:
            await asyncio.sleep(self._config.join_reminder_s)  # a script may need that long to come to its join()
            waited_s += self._config.join_reminder_s
            if self._attached:
                return
            self._log.warning(
                "the script has not called adpsgd_node.join(model, optimizer); until it does this node trains nothing",
                script=self._script.name,
                waited_s=waited_s,
            )


class _Child:
    """A running process, its session, and the pidfd that tells its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self.ended = asyncio.Event()
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)

    def signal_tree(self, number: signal.Signals) -> None:
        """Signal every process of the script's session that has not moved to a session of its own."""
        # Not yet reaped means that its id, and so the group's, cannot belong to anyone else.
        if self.process.returncode is None:
            os.killpg(self.pid, number)

    def release(self) -> None:
        """Give the pidfd back; a process that still runs (the attempt was cancelled) is killed first."""
        if not self.ended.is_set():
            self._on_end()
        os.close(self._pidfd)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        # What the script left behind would hold its GPU, its ports and the plane of the next attempt.
        self.signal_tree(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it is stuck in the kernel: nothing more can be done
            self.process.wait(KILL_WAIT_S)  # at once, unless it was cancelled while stuck in the kernel
        self.ended.set()


def _spawn(script: Script, environment: Mapping[str, str]) -> tuple[_Child, socket.socket]:
    """Start one attempt; returns the process and the daemon's end of its socketpair."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        try:
            # No preexec_fn: the daemon has gRPC's threads, and Python between fork and exec may deadlock.
            process = subprocess.Popen(  # noqa: S603 - running the user's own script is what `up` is for
                script.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**environment, "PYTHONUNBUFFERED": "1", TRAINER_FD: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise TrainerError(
                f"cannot start {script.argv[0]}: {error.strerror}; check that it is executable"
            ) from error
    return _Child(process), ours


def _exited(returncode: int | None, attached: bool, ran_s: float) -> Exited:
    assert returncode is not None, "an attempt ends only after its process was reaped"
    if returncode >= 0:
        return Exited(returncode, None, attached, ran_s)
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"  # a real-time signal
    return Exited(None, name, attached, ran_s)


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for `event` at most `timeout_s`; tells whether it is set."""
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return event.is_set()
    return True

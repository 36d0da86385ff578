"""The daemon's end of the control socket, with a real process at the other."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.daemon.trainer_link import LinkHost, TrainerLink
from adpsgd_node.errors import SchemaMismatchError
from adpsgd_node.ids import RunId
from adpsgd_node.plane import Layout, Plane
from adpsgd_node.wire.trainer import Attach, Attached, Failed, Go, pack

PATIENCE_S = 20.0

TRAINER = """
import os, socket, sys, time
from adpsgd_node.core.tensor import Segment, TensorSpec
from adpsgd_node.wire.trainer import Attach, Ready, Saved, Settle, decode, pack
link = socket.socket(fileno=int(sys.argv[1]))
def receive():
    data, *_ = socket.recv_fds(link, 1 << 16, 2)
    print(type(decode(data[4:])).__name__, flush=True)
link.sendall(pack(Attach(pid=os.getpid(), tensors=(TensorSpec("weight", (4,), "float32", Segment.PARAMETERS),))))
receive()
exec(sys.stdin.read())
"""


class Host:
    """Notes what the link tells the node."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.attach_error: SchemaMismatchError | None = None
        self.go: Go | None = Go()
        self.attached = asyncio.Event()

    def link_host(self) -> LinkHost:
        return LinkHost(
            attach=self._attach,
            prepare=self._prepare,
            stepped=lambda: self.told.append("stepped"),
            settle=lambda: self.told.append("settle"),
            saved=lambda path: self.told.append(f"saved {path}"),
            lost=lambda link: self.told.append("lost"),
        )

    def _attach(self, attach: Attach) -> tuple[Plane, Attached]:
        self.attached.set()
        if self.attach_error is not None:
            raise self.attach_error
        plane = Plane.create(Layout.build(attach.tensors, 64))
        attached = Attached(
            daemon_pid=1,
            node="n0",
            run_id=RunId("r"),
            schema=plane.layout.schema,
            chunk_bytes=64,
            resumed=False,
            output="",
        )
        return plane, attached

    async def _prepare(self) -> Go | None:
        self.told.append("prepare")
        return self.go


class Trainer:
    """A process at the other end; `does` hands it the rest of its life."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TRAINER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

    def does(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.close()

    def said(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.read().split()


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    process = Trainer()
    yield process
    process.process.kill()
    process.process.wait()


async def test_last_words_of_a_trainer_that_has_ended_are_heard(trainer: Trainer) -> None:
    host = Host()
    serving = asyncio.create_task(TrainerLink(trainer.ours, host.link_host()).serve())
    await host.attached.wait()
    trainer.does("link.sendall(pack(Settle()) + pack(Saved('model'))); os._exit(0)")
    trainer.process.wait(PATIENCE_S)  # holds the loop up: its end and its last words are seen at once
    await asyncio.wait_for(serving, PATIENCE_S)
    assert host.told == ["settle", "saved model", "stepped", "lost"]


async def test_a_trainer_whose_child_keeps_the_socket_open_is_lost_with_its_end(trainer: Trainer) -> None:
    host = Host()
    serving = asyncio.create_task(TrainerLink(trainer.ours, host.link_host()).serve())
    await host.attached.wait()
    # The child outlives the trainer, as a stuck data loader does, and the test's patience: it is killed below.
    trainer.does(
        "child = os.fork()\n"
        "if child:\n"
        "    print(child, flush=True)\n"
        "    os._exit(0)\n"
        "os.close(1)\n"  # what the trainer says ends with the trainer
        f"time.sleep({3 * PATIENCE_S})"  # no end of the child may be what ends the link
    )
    child = int(trainer.said()[-1])
    try:
        await asyncio.wait_for(serving, PATIENCE_S)
        assert host.told == ["stepped", "lost"]
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_refusal_is_sent_to_the_trainer(trainer: Trainer) -> None:
    host = Host()
    host.attach_error = SchemaMismatchError("another model")
    serving = asyncio.create_task(TrainerLink(trainer.ours, host.link_host()).serve())
    await host.attached.wait()
    trainer.does("link.close()")
    await asyncio.wait_for(serving, PATIENCE_S)
    assert trainer.said() == [Failed.__name__]
    assert host.told == []


async def test_nothing_is_answered_to_a_trainer_whose_node_ends(trainer: Trainer) -> None:
    host = Host()
    host.go = None
    serving = asyncio.create_task(TrainerLink(trainer.ours, host.link_host()).serve())
    await host.attached.wait()
    trainer.does("link.sendall(pack(Ready()) + pack(Settle())); os._exit(0)")
    await asyncio.wait_for(serving, PATIENCE_S)
    assert host.told == ["prepare", "settle", "stepped", "lost"]
    assert trainer.said() == [Attached.__name__]


async def test_a_frame_out_of_turn_is_refused(trainer: Trainer) -> None:
    host = Host()
    serving = asyncio.create_task(TrainerLink(trainer.ours, host.link_host()).serve())
    await host.attached.wait()
    trainer.does("link.sendall(pack(Attach(pid=os.getpid(), tensors=()))); receive()")
    await asyncio.wait_for(serving, PATIENCE_S)
    assert trainer.said() == [Attached.__name__, Failed.__name__]


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended and that nobody has waited for."""
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid


async def test_a_trainer_that_has_ended_before_it_was_answered_is_lost_and_nothing_else(zombie: int) -> None:
    host = Host()
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(pack(Attach(pid=zombie, tensors=(TensorSpec("weight", (4,), "float32", Segment.PARAMETERS),))))
    await asyncio.wait_for(TrainerLink(ours, host.link_host()).serve(), PATIENCE_S)
    assert host.attached.is_set()
    assert host.told == ["stepped", "lost"]

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from adpsgd_node.errors import AdpsgdError, DaemonLostError, SchemaMismatchError, WireError
from adpsgd_node.trainer.link import Link
from adpsgd_node.wire.trainer import Agreed, Failed, Go, Ready, Saved, pack


class Ends:
    """A link and the daemon's bare socket; process `daemon` stands for the daemon's life."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.link = Link(theirs)
        self.daemon = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.link.watch(self.daemon.pid)

    def kill_daemon(self) -> None:
        self.daemon.kill()
        os.waitid(os.P_PID, self.daemon.pid, os.WEXITED | os.WNOWAIT)

    def close(self) -> None:
        self.link.close()
        self.socket.close()
        self.daemon.kill()
        self.daemon.communicate()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def test_a_frame_that_comes_in_pieces_is_received_whole(ends: Ends) -> None:
    message = pack(Go(adopted=True, donor="n1"))
    pieces = [message[:1], message[1:5], message[5:]]
    sender = threading.Thread(target=lambda: [ends.socket.sendall(piece) for piece in pieces])
    sender.start()
    assert ends.link.receive(Go, 10) == Go(adopted=True, donor="n1")
    sender.join()


def test_two_frames_that_come_together_are_received_one_by_one(ends: Ends) -> None:
    ends.socket.sendall(pack(Go(donor="n1")) + pack(Go(donor="n2")))
    assert ends.link.receive(Go, 10).donor == "n1"
    assert ends.link.receive(Go, 10).donor == "n2"


def test_a_daemon_that_died_is_noticed_though_the_socket_stays_open(ends: Ends) -> None:
    ends.link.check()
    ends.kill_daemon()
    with pytest.raises(DaemonLostError, match=r"daemon is gone.*adpsgd-node up"):
        ends.link.check()
    with pytest.raises(DaemonLostError, match="daemon is gone"):
        ends.link.receive(Agreed, None)


def test_what_a_daemon_sent_before_it_died_says_why(ends: Ends) -> None:
    ends.socket.sendall(pack(Failed("SchemaMismatchError", "the run trains another model")))
    ends.kill_daemon()
    with pytest.raises(SchemaMismatchError, match="another model"):
        ends.link.check()


def test_the_end_of_the_stream_is_an_error_too(ends: Ends) -> None:
    ends.socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(DaemonLostError):
        ends.link.check()
    with pytest.raises(DaemonLostError):
        ends.link.send(Ready())


def test_a_failure_of_unknown_name_is_still_an_error_of_ours(ends: Ends) -> None:
    for code in ("NoSuchError", "annotations"):
        ends.socket.sendall(pack(Failed(code, "the fix")))
        with pytest.raises(AdpsgdError, match="the fix"):
            ends.link.receive(Go, 10)


def test_a_frame_out_of_turn_is_refused(ends: Ends) -> None:
    ends.socket.sendall(pack(Saved("")))
    with pytest.raises(WireError, match="Saved out of turn"):
        ends.link.receive(Go, 10)


def test_a_daemon_that_does_not_answer_is_given_up(ends: Ends) -> None:
    with pytest.raises(DaemonLostError, match="did not answer in time"):
        ends.link.receive(Go, 0)


def test_ctrl_c_during_a_wait_loses_no_byte(ends: Ends) -> None:
    message = pack(Go(donor="n1"))
    ends.socket.sendall(message[:3])
    main = threading.get_ident()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ends.link.receive(Go, None)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    ends.socket.sendall(message[3:])
    assert ends.link.receive(Go, 10) == Go(donor="n1")


def test_a_frame_larger_than_the_sockets_buffer_is_sent_whole(ends: Ends) -> None:
    frame = Failed("AdpsgdError", "x" * 4000)
    ends.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    total = 300 * len(pack(frame))
    received = bytearray()

    def read() -> None:
        while len(received) < total:
            received.extend(ends.socket.recv(1 << 16))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(300):
        ends.link.send(frame)
    reader.join()
    assert bytes(received) == pack(frame) * 300


def test_a_descriptor_that_leads_nowhere_is_named() -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    with pytest.raises(DaemonLostError, match=f"descriptor {read_end}, named by ADPSGD_TRAINER_FD.*join\\(\\) once"):
        Link.adopt(read_end)
    os.close(read_end)
    with pytest.raises(DaemonLostError, match="Bad file descriptor"):
        Link.adopt(read_end)


def test_close_may_be_repeated(ends: Ends) -> None:
    ends.link.close()
    ends.link.close()

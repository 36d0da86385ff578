from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from adpsgd_node.errors import DaemonLostError
from adpsgd_node.trainer.gate import Gate


class Link:
    """A link that finds the daemon gone after so many looks."""

    def __init__(self, lost_after: int = 1_000_000) -> None:
        self.looks = 0
        self._lost_after = lost_after

    def check(self) -> None:
        self.looks += 1
        if self.looks > self._lost_after:
            raise DaemonLostError("gone")


@pytest.fixture
def event() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    written = os.dup(fd)
    yield fd
    os.close(written)


def test_an_open_gate_is_passed_without_a_look(event: int) -> None:
    link = Link()
    gate = Gate(event, link)  # type: ignore[arg-type]
    gate.wait(lambda: True)
    assert link.looks == 0
    gate.close()


def test_a_word_of_the_daemon_opens_a_gate_that_is_waited_at(event: int) -> None:
    gate, opened, waiting = Gate(event, Link()), threading.Event(), threading.Event()  # type: ignore[arg-type]

    def tell() -> None:
        waiting.wait(10.0)
        os.eventfd_write(event, 1)  # not yet: the trainer looks, and waits on
        opened.set()
        os.eventfd_write(event, 1)

    teller = threading.Thread(target=tell)
    teller.start()
    asked: list[bool] = []

    def is_open() -> bool:
        asked.append(opened.is_set())
        waiting.set()
        return asked[-1]

    gate.wait(is_open)
    teller.join()
    assert asked[0] is False
    assert asked[-1] is True
    gate.close()


def test_a_gate_is_not_waited_at_for_a_daemon_that_is_gone(event: int) -> None:
    meanwhile: list[int] = []
    gate = Gate(event, Link(lost_after=1))  # type: ignore[arg-type]
    with pytest.raises(DaemonLostError, match="gone"):
        gate.wait(lambda: False, lambda: meanwhile.append(1))
    assert meanwhile == [1]
    gate.close()
    gate.close()

"""That written lines arrive in order, and that a reader who does not read holds nobody up."""

from __future__ import annotations

import io
import os
import threading

from adpsgd_node.telemetry.output import MAX_QUEUED_LINES, Channel, LineWriter

PATIENCE_S = 10.0


class BlockedStream(io.RawIOBase):
    """A terminal stopped with Ctrl-S: a write waits until `reading` is set."""

    def __init__(self) -> None:
        self.reading = threading.Event()
        self.entered = threading.Event()
        self.text = b""

    def write(self, text: bytes) -> int:  # type: ignore[override]
        self.entered.set()
        assert self.reading.wait(PATIENCE_S)
        self.text += text
        return len(text)


def test_lines_arrive_in_order_on_the_stream_they_were_meant_for() -> None:
    out, error = io.BytesIO(), io.BytesIO()
    writer = LineWriter(out, error)
    for number in range(100):
        writer.write(Channel.OUT, b"out %d" % number)
        writer.error(f"error {number}")
    assert writer.close(PATIENCE_S)
    assert out.getvalue().splitlines() == [b"out %d" % number for number in range(100)]
    assert error.getvalue().splitlines() == [b"error %d" % number for number in range(100)]


def test_writing_does_not_wait_for_a_blocked_reader_and_says_what_it_dropped() -> None:
    out = BlockedStream()
    writer = LineWriter(out, io.BytesIO())  # type: ignore[arg-type]
    writer.write(Channel.OUT, b"first")
    assert out.entered.wait(PATIENCE_S)
    for _ in range(MAX_QUEUED_LINES + 7):
        writer.write(Channel.OUT, b"more")
    out.reading.set()
    assert writer.close(PATIENCE_S)
    lines = out.text.splitlines()
    assert lines.count(b"more") == MAX_QUEUED_LINES
    assert lines[-1] == b"(7 lines dropped: nobody read them in time)"


def test_closing_gives_up_on_a_reader_that_never_reads() -> None:
    out = BlockedStream()
    writer = LineWriter(out, io.BytesIO())  # type: ignore[arg-type]
    writer.write(Channel.OUT, b"line")
    assert out.entered.wait(PATIENCE_S)
    assert not writer.close(0.01)
    out.reading.set()
    assert writer.close(PATIENCE_S)


def test_reader_that_went_away_does_not_silence_the_other_stream() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    error = io.BytesIO()
    with os.fdopen(writing, "wb", buffering=0) as gone:
        writer = LineWriter(gone, error)
        writer.write(Channel.OUT, b"lost")
        writer.error("kept")
        assert writer.close(PATIENCE_S)
    assert error.getvalue() == b"kept\n"

"""How a stream of bytes becomes lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpsgd_node.daemon.script_output import Lines, PrefixedSink
from adpsgd_node.telemetry.output import Channel


def test_lines_are_cut_wherever_the_stream_was_cut() -> None:
    lines = Lines()
    assert lines.feed(b"one\ntw") == [b"one"]
    assert lines.feed(b"o\n\nthr") == [b"two", b""]
    assert lines.finish() == [b"thr"]
    assert lines.finish() == []


def test_line_ending_of_two_bytes_ends_one_line_even_when_cut_in_two() -> None:
    lines = Lines()
    assert lines.feed(b"one\r") == []
    assert lines.feed(b"\ntwo\r\n") == [b"one", b"two"]
    assert lines.finish() == []


def test_progress_bar_that_returns_the_carriage_gives_a_line_for_each_redraw() -> None:
    lines = Lines()
    assert lines.feed(b"\r10%\r20%\r") == [b"", b"10%"]
    assert lines.finish() == [b"20%"]


def test_long_line_comes_in_pieces() -> None:
    lines = Lines(limit=4)
    assert lines.feed(b"abcdefghij") == [b"abcd", b"efgh"]
    assert lines.feed(b"kl\nm") == [b"ijkl"]
    assert lines.finish() == [b"m"]


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\r", b"")), max_size=20), st.integers(1, 50))
def test_no_byte_is_lost_and_no_piece_is_longer_than_the_limit(feeds: list[bytes], limit: int) -> None:
    lines = Lines(limit)
    pieces = [piece for data in feeds for piece in lines.feed(data)] + lines.finish()
    assert b"".join(pieces) == b"".join(feeds).replace(b"\n", b"")
    assert all(len(piece) <= limit for piece in pieces)


@pytest.mark.parametrize("channel", list(Channel))
def test_prefix_names_the_node(channel: Channel) -> None:
    written: list[tuple[Channel, bytes]] = []

    class Sink:
        def write(self, channel: Channel, line: bytes) -> None:
            written.append((channel, line))

    PrefixedSink("node-1", Sink()).write(channel, b"loss 0.5")
    assert written == [(channel, b"[node-1] loss 0.5")]

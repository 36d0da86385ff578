"""Boot numbers grow from life to life, whatever the clock and the disk do."""

from __future__ import annotations

import errno
import logging
import time
from pathlib import Path

import pytest

from adpsgd_node.daemon import boot
from adpsgd_node.daemon.boot import MAX_BOOT, MAX_OUTBID, BootFile
from adpsgd_node.ids import NodeId


def own(number: int) -> NodeId:
    return NodeId("a", number)


def set_clock(monkeypatch: pytest.MonkeyPatch, milliseconds: int) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: milliseconds * 1_000_000)


def test_the_first_life_is_numbered_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, 5_000)
    assert BootFile(tmp_path).next() == 5_000
    assert (tmp_path / "boot").read_text() == "5000\n"


def test_a_clock_that_went_back_or_stands_still_does_not_number_a_life_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = []
    for milliseconds in (5_000, 5_000, 1_000, 9_000):
        set_clock(monkeypatch, milliseconds)
        numbers.append(BootFile(tmp_path).next())
    assert numbers == [5_000, 5_001, 5_002, 9_000]


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"-3\n", b"12 13\n", str(MAX_BOOT).encode(), b"9" * 1000])
def test_a_file_that_holds_no_boot_number_is_written_anew_with_a_word_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    set_clock(monkeypatch, 5_000)
    (tmp_path / "boot").write_bytes(content)
    with caplog.at_level(logging.WARNING, "adpsgd_node"):
        assert BootFile(tmp_path).next() == 5_000
    assert "holds no boot number" in caplog.text
    assert (tmp_path / "boot").read_text() == "5000\n"


def test_without_a_writable_file_the_clock_numbers_the_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_clock(monkeypatch, 5_000)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(boot.os, "fsync", full)
    with caplog.at_level(logging.WARNING, "adpsgd_node"):
        assert BootFile(tmp_path).next() == 5_000
    assert "cannot note the boot number" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_ghost_is_outbid_and_the_next_life_starts_above_that(tmp_path: Path) -> None:
    boots = BootFile(tmp_path)
    ghost = own(boots.next() + 10**9)
    assert boots.outbid(own(1), ghost) == own(ghost.boot + 1)
    assert BootFile(tmp_path).next() == ghost.boot + 2


def test_a_ghost_with_a_smaller_number_or_one_beyond_the_limit_is_not_outbid(tmp_path: Path) -> None:
    boots = BootFile(tmp_path)
    assert boots.outbid(own(7), own(7)) is None
    assert boots.outbid(own(7), own(6)) is None
    assert boots.outbid(own(7), own(MAX_BOOT)) is None
    assert not boots.path.exists()


def test_a_process_outbids_only_a_few_times(tmp_path: Path) -> None:
    boots, current = BootFile(tmp_path), own(1)
    for _ in range(MAX_OUTBID):
        following = boots.outbid(current, own(current.boot + 1))
        assert following is not None
        current = following
    assert boots.outbid(current, own(current.boot + 1)) is None

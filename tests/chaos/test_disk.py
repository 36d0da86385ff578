"""A node's disk can be full, and has room again afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.disk import LIMIT_BYTES, Disk, LimitedDisk, SmallDisk, unmount_stale
from chaos.mark import Mark

WRITER = "import sys; [open(sys.argv[1], 'wb').write(bytes(200_000)) and print('ok', flush=True) for _ in sys.stdin]"
"""Writes a file, of a model's size, at each line it reads."""


def small(folder: Path) -> Disk:
    try:
        return SmallDisk(folder, Mark())
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode().strip()
        if "superuser" not in told and "permission" not in told.lower():
            raise
        pytest.skip(f"no disk can be mounted here: {told}")


@pytest.fixture(params=[small, LimitedDisk], ids=["small", "limited"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    make: Callable[[Path], Disk] = request.param
    made = make(tmp_path / "disk")
    yield made
    made.close()


def writes(disk: Disk, *, full: bool) -> bool:
    """Tell whether a process that runs already can write a file while the disk is full, or after."""
    command = [sys.executable, "-c", WRITER, str(disk.folder / "model")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        disk.fill([process.pid])
        if not full:
            disk.clear([process.pid])
        output, _ = process.communicate(b"\n", timeout=60)
    disk.clear([])
    return output == b"ok\n"


def test_nothing_fits_on_a_full_disk(disk: Disk) -> None:
    assert not writes(disk, full=True)


def test_a_disk_that_was_full_has_room_again(disk: Disk) -> None:
    assert writes(disk, full=False)


def test_the_limit_lets_logs_be_written_and_no_models() -> None:
    assert 50_000 < LIMIT_BYTES < 200_000


def test_a_disk_that_a_killed_run_left_is_unmounted(tmp_path: Path) -> None:
    small(tmp_path / "probe").close()
    subprocess.run(["mount", "-t", "tmpfs", "adpsgd-chaos-1-1", str(tmp_path)], check=True)
    assert unmount_stale() == [str(tmp_path)]
    assert str(tmp_path) not in Path("/proc/mounts").read_text()

"""Messages of megabytes reuse memory once the allocator is set up; judged by the page faults of a fresh process."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from adpsgd_node.daemon.allocator import KEPT_BYTES

MESSAGE_BYTES = 1 << 20
MESSAGES = 12
ROUNDS = 20
FAULTS_OF_A_ROUND = MESSAGES * MESSAGE_BYTES // 4096

PROGRAM = f"""
import resource, sys
from adpsgd_node.daemon.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def hold_messages():
    messages = [b"x" * {MESSAGE_BYTES} for _ in range({MESSAGES})]

hold_messages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    hold_messages()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


def test_messages_are_made_from_memory_that_earlier_ones_left() -> None:
    assert MESSAGES * MESSAGE_BYTES < KEPT_BYTES
    assert faults("kept") < FAULTS_OF_A_ROUND


def test_without_it_every_message_takes_fresh_pages() -> None:
    """What glibc does by itself; when this fails, `keep_freed_memory` is needed no more."""
    assert faults("given back") > ROUNDS * FAULTS_OF_A_ROUND // 2
